// Verdicts on layers that show one tree together. None of them unpacks to what it shows, so nothing can be compared. What is found out is
// whether engines may know them by the DiffIDs that their image claims.
//
//   shows the tree    the tree follows from the blob's bytes; read whole, for what its tar is called
//   shows nothing     no engine ever gave its digest to a layer as that of a tar, for it is none (format/opaque.ts)
import type { FileHandle } from 'node:fs/promises'
import { gzipSync } from 'node:zlib'
import { Failure } from '../errors.ts'
import { OPAQUE_END_BYTES, whyNotOpaque, whyNotPart } from '../format/opaque.ts'
import type { RawExamined } from '../format/raw-split.ts'
import { digestOf } from '../image/digest.ts'
import { type OpenLayer, TOGETHER, type Together } from '../layer/layer.ts'
import type { Proof, Refutation } from '../store/proofs.ts'

/**
 * A tar-split file for what is no tar: a file that is not there, so that engines end at once, with nothing fetched. Its name is what they
 * say then.
 */
export const NO_SPLIT: Uint8Array = new Uint8Array(
  gzipSync(
    `{"type":1,"name":"this layer is no tar, see lazylayer explain","size":1,"payload":"AAAAAAAAAAA=","position":0}\n`,
  ),
)
const NO_SPLIT_DIGEST = digestOf(NO_SPLIT)

/** @param file holds the blob, whose digest was checked @throws Failure unsupported: it is not what its image says of it; system */
export async function judgePart(layer: OpenLayer, together: Together, file: FileHandle): Promise<Proof | Refutation> {
  const { digest, size } = layer.descriptor
  const part = together.parts?.find((each) => each.digest === digest)
  if (part === undefined) throw unproven(layer, 'the index of its image does not name it')
  const seen = { diffId: digest, tarSize: size, split: NO_SPLIT_DIGEST }
  const why = whyNotOpaque(await end(file, 0))
  if (why !== undefined) return { verdict: 'refuted', why, ...seen }
  const differs = whyNotPart(await end(file, Math.max(0, size - OPAQUE_END_BYTES)), part)
  // nothing against the blob, which other images may have: theirs may say otherwise
  if (differs !== undefined) throw unproven(layer, differs)
  return { verdict: 'proven', ...seen }
}

/** @param read what its blob's tar is @throws Failure unsupported: something else than its blob has a say in the tree */
export async function judgeShown(
  layer: OpenLayer,
  { unit, parts }: Together,
  read: () => Promise<RawExamined>,
): Promise<Proof> {
  if (parts === undefined || unit.index !== layer.descriptor.digest) throw unproven(layer, TOGETHER)
  return { verdict: 'proven', ...(await read()) }
}

async function end(file: FileHandle, at: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(OPAQUE_END_BYTES)
  try {
    const { bytesRead } = await file.read(bytes, 0, bytes.length, at)
    return bytes.subarray(0, bytesRead)
  } catch (cause) {
    throw Failure.system('a blob cannot be read back from the cache', { cause })
  }
}

function unproven({ descriptor }: OpenLayer, why: string): Failure {
  return Failure.unsupported(`layer ${descriptor.digest} cannot be proven`, { why })
}
