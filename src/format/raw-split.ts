// Reads a layer whole whose tar is shown as something else: what its tar is called, and the records by which engines put it together
// again. They hold all of the tar's bytes, because no file of the tar is where the layer is shown.
import { createHash } from 'node:crypto'
import { Failure } from '../errors.ts'
import { type Digest, finish } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { SplitWriter } from './tar/split.ts'
import { SplitFile } from './tar/split-file.ts'
import { storedTar } from './tar/stored-tar.ts'

/** As of an Examination. */
export interface RawExamination {
  layer: Descriptor
  /** Holds the blob, whose digest was checked. */
  blobFd: number
  /** An empty file. */
  splitFd: number
  /** Bytes that the tar may have. */
  tarMaxBytes: number
}

export interface RawExamined {
  diffId: Digest
  /** Bytes. */
  tarSize: number
  split: Digest
}

/** @throws Failure corrupt, limit, system */
export async function examineRaw({ layer, blobFd, splitFd, tarMaxBytes }: RawExamination): Promise<RawExamined> {
  const what = `layer ${layer.digest}`
  const file = new SplitFile(splitFd)
  const split = new SplitWriter(file)
  const hash = createHash('sha256')
  let tarSize = 0
  try {
    for await (const piece of storedTar(blobFd, what)) {
      tarSize += piece.length
      if (tarSize > tarMaxBytes) throw Failure.limit(`${what}: its tar has more than ${tarMaxBytes} bytes`)
      hash.update(piece)
      split.raw(piece)
      split.segment()
      await split.pass()
    }
    await split.end()
    return { diffId: finish(hash), tarSize, split: await file.end() }
  } finally {
    await file.close()
  }
}
