// An image as text, one line a path, for tests to compare: `d/x file 644 0:0 "hello"`.
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from '../../src/tree/entry.ts'
import { ErofsReader } from '../../src/tree/erofs-reader.ts'

const KINDS: Record<number, string> = {
  [S_IFREG]: 'file',
  [S_IFDIR]: 'dir',
  [S_IFLNK]: 'symlink',
  [S_IFCHR]: 'char',
  [S_IFBLK]: 'block',
  [S_IFIFO]: 'fifo',
  [S_IFSOCK]: 'socket',
}

export interface ShowOptions {
  /** The contents of the image's devices, slot by slot. */
  devices?: readonly Uint8Array[]
  /** Also show what is the same for most entries of a test. */
  mtime?: boolean
}

/** Directories end in a slash; the root is '/'. Names of one inode show the number of its links and the same first name. */
export function show(image: Uint8Array, { devices = [], mtime = false }: ShowOptions = {}): string[] {
  const reader = new ErofsReader(image)
  const lines: string[] = []
  const names = new Map<number, string>()
  const walk = (nid: number, path: string) => {
    const of = reader.attributes(nid)
    const kind = KINDS[of.mode & S_IFMT] ?? 'nothing'
    const parts = [path || '/', kind, (of.mode & 0o7777).toString(8), `${of.uid}:${of.gid}`]
    if (mtime) parts.push(`${of.mtime}`)
    if (of.rdev) parts.push(of.rdev.join(':'))
    if (kind === 'symlink') parts.push(`-> ${reader.readlink(nid)}`)
    if (kind === 'file') {
      const content = reader.content(nid)
      const device = content && devices[content.device - 1]
      if (content && device) {
        const bytes = device.subarray(content.offset, content.offset + content.size)
        parts.push(JSON.stringify(new TextDecoder().decode(bytes)))
      } else parts.push(`${of.size}`)
    }
    for (const [name, value] of reader.xattrs(nid)) parts.push(`${name}=${Buffer.from(value).toString('latin1')}`)
    if (kind !== 'dir' && of.nlink > 1) parts.push(`(${of.nlink} links of ${names.get(nid) ?? path})`)
    if (!names.has(nid)) names.set(nid, path)
    lines.push(parts.join(' '))
    if (kind !== 'dir') return
    for (const child of reader.readdir(nid)) walk(child.nid, path === '' ? child.name : `${path}/${child.name}`)
  }
  walk(reader.root, '')
  return lines
}
