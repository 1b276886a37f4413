// What engines find at the image store when no agent serves it: an empty store. Without one, an engine either fails every command or
// writes a store of its own there.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const FILES = [
  ['overlay-images/images.json', '[]\n'],
  ['overlay-images/images.lock', ''],
  ['overlay-layers/layers.json', '[]\n'],
  ['overlay-layers/layers.lock', ''],
] as const

/** Must be called before anything is mounted over `dir`. Files that are there already stay as they are. @throws the system's errors */
export async function putEmptyStore(dir: string): Promise<void> {
  for (const folder of ['overlay', 'overlay-images', 'overlay-layers']) {
    await mkdir(join(dir, folder), { recursive: true, mode: 0o755 })
  }
  for (const [name, text] of FILES) {
    await writeFile(join(dir, name), text, { mode: 0o444, flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
  }
}
