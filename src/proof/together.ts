// Verdicts on layers that show one tree together. None of them unpacks to what it shows, so nothing can be compared. What is found out is
// whether engines may know them by the DiffIDs that their image claims.
//
//   shows the tree    the tree follows from the blob's bytes; read whole, for what its tar is called
//   shows nothing     no engine ever gave its digest to a layer as that of a tar, for it is none (format/opaque.ts)
import type { FileHandle } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import { beginsEmpty, beginsTar, OPAQUE_END_BYTES, whyNotPart } from '../format/opaque.ts'
import type { RawExamined } from '../format/raw-split.ts'
import { FileBlob } from '../layer/file-blob.ts'
import { type OpenLayer, TOGETHER, type Together } from '../layer/layer.ts'
import type { Proof, Refutation } from '../store/proofs.ts'
import { NO_SPLIT_DIGEST } from './split-files.ts'

/**
 * @param file holds the blob, whose digest was checked
 * @param read reads all of it, for what its tar is called
 * @throws Failure unsupported: it cannot be proven; system; what `read` throws
 */
export async function judgeTogether(
  layer: OpenLayer,
  file: FileHandle,
  read: () => Promise<RawExamined>,
): Promise<Proof | Refutation> {
  const { together } = layer
  if (together === undefined) throw new TypeError('a layer with a tree of its own is compared with it')
  return together.shows ? await judgeShown(layer, together, read) : await judgePart(layer, together, file)
}

/** @param file holds the blob, whose digest was checked @throws Failure unsupported: it is not what its image says of it; system */
async function judgePart(layer: OpenLayer, together: Together, file: FileHandle): Promise<Proof | Refutation> {
  const { digest, size } = layer.descriptor
  const part = together.parts?.find((each) => each.digest === digest)
  if (part === undefined) throw unproven(layer, 'the index of its image does not name it')
  const seen = { diffId: digest, tarSize: size, split: NO_SPLIT_DIGEST }
  const blob = new FileBlob({ digest, size }, file)
  const [head, tail] = await Promise.all([
    blob.read({ start: 0, end: Math.min(size, OPAQUE_END_BYTES) }),
    blob.read({ start: Math.max(0, size - OPAQUE_END_BYTES), end: size }),
  ])
  if (beginsTar(head)) return { verdict: 'refuted', why: 'it begins as a tar does', ...seen }
  if (beginsEmpty(head))
    throw unproven(layer, 'it is short or begins with zeros, so that engines may take it for an empty layer')
  const differs = whyNotPart(tail, part)
  // nothing against the blob, which other images may have: theirs may say otherwise
  if (differs !== undefined) throw unproven(layer, differs)
  return { verdict: 'proven', ...seen }
}

/** @param read what its blob's tar is @throws Failure unsupported: something else than its blob has a say in the tree */
async function judgeShown(
  layer: OpenLayer,
  { unit, parts }: Together,
  read: () => Promise<RawExamined>,
): Promise<Proof> {
  if (parts === undefined || unit.index !== layer.descriptor.digest) throw unproven(layer, TOGETHER)
  return { verdict: 'proven', ...(await read()) }
}

function unproven({ descriptor }: OpenLayer, why: string): Failure {
  return Failure.unsupported(`layer ${descriptor.digest} cannot be proven`, { why })
}
