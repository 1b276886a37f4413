// Reads layers whole, so that they may bear their names; what was read fills their devices.
import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { StoredBlob } from '../registry/source.ts'
import { READY_VERIFIED } from '../tree/ready.ts'
import { FileBlob } from './file-blob.ts'
import { type Examiner, type OpenLayer, TOGETHER, type Verdict, WHOLE } from './layer.ts'

export interface ProveParts {
  examiner: Examiner
  /** Whether a blob is on disk, all of it. */
  isKept(blob: Digest): boolean
  /** Aborts when the agent stops. */
  signal: AbortSignal
  /** Aborts when the cache's disk is full. */
  full: AbortSignal
}

/**
 * Has a layer read whole, if it never was. When its tree is not its tar's, it is never opened again.
 * @param layer stays open until this ends
 * @throws Failure as Examiner.verdict; unsupported: it is one of several layers whose index does not name them
 */
export async function prove(layer: OpenLayer, blob: StoredBlob, parts: ProveParts): Promise<Verdict> {
  const { examiner } = parts
  const known = await examiner.known(layer)
  if (layer.together !== undefined) return await proveTogether(layer, blob, known, parts)
  if (known?.verdict === 'refuted' || (known && (await missingOf(layer)).length === 0)) return known
  if (layer.format === WHOLE) {
    const verdict = known ?? (await examiner.verdict(layer, blob))
    // it was made of the tar, which is still there
    if (verdict.verdict === 'proven') await fill(layer, parts)
    return verdict
  }
  const file = await examiner.blob(blob) // from its own source: nobody waits for another's registry
  try {
    const verdict = known ?? (await examiner.judge(layer, file))
    if (verdict.verdict === 'proven') await fillFrom(layer, new FileBlob(blob, file), parts)
    return verdict
  } finally {
    await file.close()
  }
}

/** One of several layers that show one tree; the tree is filled where all of its blobs were read. */
async function proveTogether(
  layer: OpenLayer,
  blob: StoredBlob,
  known: Verdict | undefined,
  parts: ProveParts,
): Promise<Verdict> {
  // what its index says nothing of nothing is proven of: not a byte is read
  if (layer.together?.parts === undefined)
    throw Failure.unsupported(`layer ${blob.digest} cannot be proven`, { why: TOGETHER })
  const verdict = known ?? (await parts.examiner.verdict(layer, blob))
  const isHere = layer.chunks.blobs.every(({ digest }) => parts.isKept(digest))
  if (verdict.verdict === 'proven' && layer.chunks.length > 0 && isHere) await fill(layer, parts)
  return verdict
}

/** Fills a layer's device, within the budget of prefetch. */
async function fill(layer: OpenLayer, { signal, full }: ProveParts): Promise<void> {
  try {
    await layer.filler.fill(await missingOf(layer), 'prefetch', AbortSignal.any([signal, full]))
  } catch (error) {
    if (!full.aborted) throw error // else it is filled when somebody reads it
  }
}

/** The same from a file that holds its blob; whoever reads meanwhile is served from there, too. */
async function fillFrom(layer: OpenLayer, local: FileBlob, parts: ProveParts): Promise<void> {
  if (parts.signal.aborted) throw Failure.aborted('the agent is stopping') // the device may be closed
  const file = layer.fileFiller(() => local, 'file')
  await layer.filler.withFile(file, () => fill(layer, parts))
}

/** The chunks that are not verified. */
async function missingOf({ slots }: OpenLayer): Promise<number[]> {
  const states = await slots.states()
  return [...states.keys()].filter((chunk) => states[chunk] !== READY_VERIFIED)
}
