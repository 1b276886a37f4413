// The layers below a bootstrap, as the bootstrap names them: each blob of its table, or the blob that has a blob's tables where its chunks
// are those of an ordinary layer.
import type { Part } from '../../image/part.ts'
import { TOC_NAME } from './blob-toc.ts'
import { FEATURE } from './codes.ts'
import type { Rafs, RafsBlob } from './rafs.ts'

/** Undefined: one of them is no blob of a registry. */
export function partsOf({ blobs }: Pick<Rafs, 'blobs'>): readonly Part[] | undefined {
  const parts = blobs.map(partOf)
  return parts.every((each) => each !== undefined) ? parts : undefined
}

function partOf({ id, features = 0, tables }: RafsBlob): Part | undefined {
  const holder = tables?.holder ?? id
  if (!/^[0-9a-f]{64}$/.test(holder)) return undefined
  return { digest: `sha256:${holder}`, ...(features & FEATURE.toc ? { ends: TOC_NAME } : {}) }
}
