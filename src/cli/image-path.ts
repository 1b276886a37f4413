// A path in an image: cleaned as shells clean what is typed, then followed as a container would follow it.
import { Failure } from '../errors.ts'
import { S_IFDIR, S_IFLNK, S_IFMT } from '../tree/entry.ts'
import type { Attributes, ErofsReader } from '../tree/erofs-reader.ts'

/** As many symlinks as Linux follows (MAXSYMLINKS). */
const SYMLINKS_MAX = 40

const components = (path: string) => path.split('/').filter((each) => each !== '' && each !== '.')

/** Of a path that somebody types: `..` takes the name before it away, whatever that is, as shells do it, and stays at the root there. */
export function cleaned(path: string): string[] {
  const names: string[] = []
  for (const each of components(path)) {
    if (each === '..') names.pop()
    else names.push(each)
  }
  return names
}

/**
 * The file at `path`, symlinks on the way and at its end followed inside the image: neither they nor `..` lead above its root. A `..` in a
 * symlink is one of the directory that it is in, as in the kernel.
 * @throws Failure missing, usage (too many symlinks)
 */
export function find(reader: ErofsReader, path: string): Attributes {
  const left = cleaned(path)
  const way: Attributes[] = [reader.attributes(reader.root)]
  for (let links = 0; left.length > 0; ) {
    const name = left.shift() as string // just seen
    const here = way.at(-1) as Attributes // the root at least
    if ((here.mode & S_IFMT) !== S_IFDIR) throw absent(path)
    if (name === '..') {
      if (way.length > 1) way.pop()
      continue
    }
    const nid = reader.lookup(here.nid, name)
    if (nid === undefined) throw absent(path)
    const node = reader.attributes(nid)
    if ((node.mode & S_IFMT) !== S_IFLNK) {
      way.push(node)
      continue
    }
    if (++links > SYMLINKS_MAX) throw Failure.usage(`${path} has more than ${SYMLINKS_MAX} symlinks on its way`)
    const target = reader.readlink(nid)
    if (target.startsWith('/')) way.splice(1)
    left.unshift(...components(target))
  }
  return way.at(-1) as Attributes // the root at least
}

function absent(path: string): Failure {
  return Failure.missing(`the image has no ${JSON.stringify(path)}`)
}
