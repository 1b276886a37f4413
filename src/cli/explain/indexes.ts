// Whether the indexes of an image's lazy layers can be used: each is read and parsed as the agent does it, and nothing is kept.
import { describe, Failure } from '../../errors.ts'
import type { Source } from '../../format/format.ts'
import { formatNamed, type Units } from '../../format/formats.ts'
import { IndexBuilder } from '../../format/parser.ts'
import type { Descriptor } from '../../image/manifest.ts'
import type { Together } from '../../layer/layer.ts'
import { togetherOf } from '../../layer/layers.ts'
import { mapLimited } from '../../limit.ts'

/** What of an image its indexes are read from. */
export interface Indexed extends Source {
  plan: Units
}

/** Each takes as much memory as its index says, up to a limit. */
const READ_AT_ONCE = 2
/** Of all of them together. */
const TIMEOUT_MS = 60_000

/** What came of reading the indexes of layers. */
export interface ReadIndexes {
  /** Why not, for each layer whose index cannot be used. */
  unusable: ReadonlyMap<Descriptor, string>
  /** What layers are that show one tree together, where it can. */
  together: ReadonlyMap<Descriptor, Together>
}

/** @param layers lazy ones, or others, which are passed over */
export async function readIndexes(layers: readonly Descriptor[], image: Indexed): Promise<ReadIndexes> {
  const builder = new IndexBuilder()
  try {
    return await readBy(builder, layers, image)
  } finally {
    await builder.close()
  }
}

async function readBy(builder: IndexBuilder, layers: readonly Descriptor[], image: Indexed): Promise<ReadIndexes> {
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  const unusable = new Map<Descriptor, string>()
  const together = new Map<Descriptor, Together>()
  const read = async (descriptor: Descriptor): Promise<void> => {
    const unit = image.plan.get(descriptor)
    if (unit === undefined || 'why' in unit || descriptor !== unit.shown) return
    try {
      const index = await formatNamed(unit.format).readIndex(unit, image, { signal })
      const { parts, chunks } = await builder.build(index, unit, { signal })
      if (unit.layers.length === 1) return
      for (const each of unit.layers) together.set(each, togetherOf(unit, each, parts, chunks))
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      for (const each of unit.layers) unusable.set(each, describe(error))
    }
  }
  await mapLimited(layers, READ_AT_ONCE, read)
  return { unusable, together }
}
