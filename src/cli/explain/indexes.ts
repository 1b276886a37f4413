// Whether the indexes of an image's lazy layers can be used: each is read and parsed as the agent does it, and nothing is kept.
import { describe, Failure } from '../../errors.ts'
import type { Source } from '../../format/format.ts'
import { formatNamed, type Units } from '../../format/formats.ts'
import { IndexBuilder } from '../../format/parser.ts'
import type { Descriptor } from '../../image/manifest.ts'

/** What of an image its indexes are read from. */
export interface Indexed extends Source {
  plan: Units
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
  image: Indexed,
): Promise<ReadonlyMap<Descriptor, string>> {
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  const unusable = new Map<Descriptor, string>()
  const read = async (descriptor: Descriptor): Promise<void> => {
    const unit = image.plan.get(descriptor)
    if (unit === undefined || 'why' in unit || descriptor !== unit.shown) return
    try {
      const index = await formatNamed(unit.format).readIndex(unit, image, { signal })
      await builder.build(index, unit, { signal })
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      for (const each of unit.layers) unusable.set(each, describe(error))
    }
  }
  for (let at = 0; at < layers.length; at += READ_AT_ONCE) {
    await Promise.all(layers.slice(at, at + READ_AT_ONCE).map(read))
  }
  return unusable
}
