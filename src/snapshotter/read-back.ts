// Lazy layers of an earlier life, shown again before anybody may ask: from disk, without a registry. What is damaged or gone there is
// fetched again behind the start, until it is there; snapshots that need it are refused meanwhile.
import { setTimeout as sleep } from 'node:timers/promises'
import { describe } from '../errors.ts'
import type { From } from '../layer/layers.ts'
import { imageAgain, layerAgain, type Reopening } from '../layer/reopen.ts'
import { mapLimited } from '../limit.ts'
import type { LayerNames } from './names.ts'
import type { ShownTrees } from './shown-trees.ts'
import type { LazyLayer } from './snapshot.ts'

export interface ReadBackParts extends Reopening {
  trees: Pick<ShownTrees, 'claim' | 'hold' | 'letGo'>
  names: Pick<LayerNames, 'restore'>
  /** Those of all snapshots, one each. */
  layersNow(): LazyLayer[]
  /** Ends what goes on behind the start. */
  signal: AbortSignal
  log(message: string): void
}

/** Each layer's image on disk is hashed. */
const READ_AT_ONCE = 8
const AGAIN_MIN_MS = 5_000
const AGAIN_MAX_MS = 60_000

/**
 * Shows layers again, each until no snapshot shows it.
 * @returns one of each kind that could not be. Never rejects
 */
export async function readBack(parts: ReadBackParts): Promise<LazyLayer[]> {
  const left: LazyLayer[] = []
  const layers = parts.layersNow()
  for (const { tree } of layers) parts.trees.claim(tree)
  const kinds = new Map(layers.map((each) => [keyOf(each), each]))
  await mapLimited([...kinds.values()], READ_AT_ONCE, async (layer) => {
    const why = await showAgain(layer, 'disk', parts)
    if (why === undefined) return
    parts.log(`layer ${layer.blob} of ${layer.reference} is not shown again: ${why}`)
    left.push(layer)
  })
  return left
}

/** Shows what is left as soon as that can be done, as long as a snapshot shows it. Ends with `signal`, too; never rejects. @param againMs before the second try */
export async function readLeft(
  left: readonly LazyLayer[],
  parts: ReadBackParts,
  againMs = AGAIN_MIN_MS,
): Promise<void> {
  const { layersNow, signal, log } = parts
  const keepTrying = async (layer: LazyLayer) => {
    for (let waitMs = againMs; !signal.aborted; waitMs = Math.min(waitMs * 2, AGAIN_MAX_MS)) {
      if (!layersNow().some((each) => keyOf(each) === keyOf(layer))) return // they were removed
      if ((await showAgain(layer, 'anywhere', parts)) === undefined) {
        log(`layer ${layer.blob} of ${layer.reference} is shown again`)
        return
      }
      await sleep(waitMs, undefined, { signal, ref: false }).catch(() => {}) // then it is over
    }
  }
  await Promise.all(left.map(keepTrying))
}

/** The same layer of the same image: its name is restored with it. */
function keyOf({ manifest, place, blob, tree }: LazyLayer): string {
  return `${manifest} ${place} ${blob} ${tree}`
}

/** For the snapshots that claimed its tree and are there still. @returns why not */
async function showAgain(layer: LazyLayer, from: From, parts: ReadBackParts): Promise<string | undefined> {
  const { trees, names } = parts
  try {
    const image = await imageAgain(layer, from, parts)
    const lease = await layerAgain({ ...layer, whole: layer.index === undefined }, image, from, parts)
    try {
      await names.restore(image, layer.place, lease)
      await trees.hold(lease, image)
      trees.letGo(lease.tree) // those that claimed it hold it now
    } finally {
      await lease.close()
    }
    return undefined
  } catch (error) {
    return describe(error)
  }
}
