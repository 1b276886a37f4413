// In which order an image's files lie on their devices, as the mounted image itself says.
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { S_IFDIR, S_IFMT, S_IFREG } from '../src/tree/entry.ts'
import { ErofsReader } from '../src/tree/erofs-reader.ts'

export interface Placed {
  /** Below the mount. */
  path: string
  device: number
  offset: number
  size: number
}

/** The files of the one image that was mounted with this cache, without empty ones: device by device, from its start to its end. */
export async function layoutOrder(cache: string): Promise<Placed[]> {
  const merged = join(cache, 'merged')
  const [record, ...others] = await readdir(merged)
  if (record === undefined || others.length > 0) throw new Error(`${merged} is not of one image`)
  const { image } = JSON.parse(await readFile(join(merged, record), 'utf8')).record
  return filesOf(new ErofsReader(await readFile(join(cache, 'trees', image.replace('sha256:', ''), 'image'))))
}

function filesOf(reader: ErofsReader): Placed[] {
  const files: Placed[] = []
  const visit = (directory: number, below: string) => {
    for (const { name, nid } of reader.readdir(directory)) {
      const type = reader.attributes(nid).mode & S_IFMT
      const path = below + name
      if (type === S_IFDIR) visit(nid, `${path}/`)
      const content = type === S_IFREG ? reader.content(nid) : null
      if (content !== null) files.push({ path, ...content })
    }
  }
  visit(reader.root, '')
  return files.sort((a, b) => a.device - b.device || a.offset - b.offset)
}

/** The same in an order without order, the same each time: by a linear congruential generator (Numerical Recipes' constants). */
export function shuffled<T>(of: readonly T[]): T[] {
  const all = [...of]
  let state = 1
  for (let i = all.length - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    const j = Math.floor((state / 2 ** 32) * (i + 1))
    ;[all[i], all[j]] = [all[j] as T, all[i] as T] // both below all.length
  }
  return all
}
