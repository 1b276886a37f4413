// Tar-split files: by them engines that save or push an image put a layer's tar together again.
import fs, { type FileHandle } from 'node:fs/promises'
import { gzipSync } from 'node:zlib'
import { Failure } from '../errors.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import type { Store } from '../store/store.ts'

/**
 * A tar-split file for what is no tar: a file that is not there, so that engines end at once, with nothing fetched. Its name is what they
 * say then.
 */
const NO_SPLIT: Uint8Array = new Uint8Array(
  gzipSync(
    `{"type":1,"name":"this layer is no tar, see lazylayer explain","size":1,"payload":"AAAAAAAAAAA=","position":0}\n`,
  ),
)
export const NO_SPLIT_DIGEST = digestOf(NO_SPLIT)

/** The file of what is no tar, which the caller closes. @throws Failure system */
export async function noSplit(store: Pick<Store, 'temporary'>): Promise<FileHandle> {
  const file = await store.temporary()
  try {
    await file.writeFile(NO_SPLIT)
    return file
  } catch (cause) {
    await file.close()
    throw Failure.system('a tar-split cannot be written', { cause })
  }
}

/** Keeps the file that `examine` writes, whose digest it says. @throws Failure system; what `examine` throws */
export async function withSplit<T extends { split: Digest }>(
  wholes: Store['wholes'],
  examine: (file: FileHandle) => Promise<T>,
): Promise<T> {
  const split = await wholes.begin()
  try {
    const examined = await examine(split.file)
    await wholes.keep(examined.split, split.path)
    return examined
  } finally {
    await split.file.close()
    await fs.rm(split.path, { force: true })
  }
}
