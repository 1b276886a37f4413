// Whether the indexes of an image's lazy layers can be used: each is read and parsed as the agent does it, and nothing is kept.
import { describe, Failure } from '../../errors.ts'
import type { Source } from '../../format/format.ts'
import { IndexBuilder } from '../../format/parser.ts'
import type { Descriptor } from '../../image/manifest.ts'
import { formatOf } from '../../layer/layer.ts'

/** What of an image its indexes are read from. */
export interface Indexed {
  blob(descriptor: Descriptor): Source['blob']
  companion: Source['companion']
}

/** Each takes as much memory as its index says, up to a limit. */
const READ_AT_ONCE = 2
/** Of all of them together. */
const TIMEOUT_MS = 60_000

/** Why not, for each whose index cannot be used. @param layers lazy ones, or others, which are passed over */
export async function unusableIndexes(
  layers: readonly Descriptor[],
  image: Indexed,
): Promise<ReadonlyMap<Descriptor, string>> {
  const builder = new IndexBuilder()
  try {
    return await unusableBy(builder, layers, image)
  } finally {
    await builder.close()
  }
}

async function unusableBy(
  builder: IndexBuilder,
  layers: readonly Descriptor[],
  { blob, companion }: Indexed,
): Promise<ReadonlyMap<Descriptor, string>> {
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  const unusable = new Map<Descriptor, string>()
  const read = async (descriptor: Descriptor): Promise<void> => {
    const format = formatOf(descriptor)
    if ('why' in format) return
    try {
      const index = await format.readIndex({ descriptor }, { blob: blob(descriptor), companion }, { signal })
      await builder.build(format, index, { descriptor }, { signal })
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      unusable.set(descriptor, describe(error))
    }
  }
  for (let at = 0; at < layers.length; at += READ_AT_ONCE) {
    await Promise.all(layers.slice(at, at + READ_AT_ONCE).map(read))
  }
  return unusable
}
