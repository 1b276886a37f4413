// A whole blob in a file, as the agent fetches it.
import { open } from 'node:fs/promises'
import { fetchWhole, type StoredBlob } from '../../src/registry/source.ts'
import { Hasher } from '../../src/store/hasher.ts'

export async function fetchInto(path: string, blob: StoredBlob): Promise<void> {
  const file = await open(path, 'w+')
  const hasher = new Hasher()
  const hashing = hasher.begin(file.fd)
  try {
    await fetchWhole(blob, file, hashing)
  } finally {
    await hashing.close()
    await file.close()
    await hasher.close()
  }
}
