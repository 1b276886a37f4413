// A listed layer's tar-split file, from whichever of its sources has all of its bytes.
import { Failure } from '../errors.ts'
import type { OpenLayer } from '../layer/layer.ts'
import type { LateFile } from '../mount/session.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { ChainLink } from './image-chain.ts'

/** After these failures of one source another may do better. */
const ELSEWHERE = new Set(['missing', 'denied', 'unavailable', 'timeout', 'corrupt'])

/**
 * @param filesOf the layer, unless it is quarantined
 * @param split makes the file from all bytes of the layer, if need be
 * @throws what its newest source throws, when none has it; corrupt: it would be another tar's
 */
export async function tarSplit(
  link: ChainLink,
  filesOf: (link: ChainLink) => OpenLayer | undefined,
  split: (layer: OpenLayer, blob: StoredBlob) => Promise<LateFile>,
): Promise<LateFile> {
  const failures: unknown[] = []
  for (const blob of link.blobs) {
    const layer = filesOf(link) // it may lie, as the last source showed
    if (layer === undefined) throw Failure.corrupt('it is quarantined')
    try {
      const file = await split(layer, blob)
      if (layer.together?.shows === false) return file // it gives nothing back
      const verdict = await layer.verdict()
      if (link.identity.by === 'index' || verdict?.diffId === link.identity.digest) return file
      await file.close()
      throw Failure.corrupt(`its bytes have DiffID ${verdict?.diffId}, not ${link.identity.digest}`)
    } catch (error) {
      if (!(error instanceof Failure) || !ELSEWHERE.has(error.code)) throw error
      failures.push(error)
    }
  }
  throw failures[0]
}
