// Unpacking and overlaying, naively: a map from path to what is there. Written to be obviously right, not fast.
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT } from '../../src/tree/entry.ts'
import type { Spec } from './layer.ts'

export interface Thing {
  mode: number
  uid: number
  gid: number
  mtime: bigint
  text: string
  rdev?: readonly [number, number] | undefined
  target?: string | undefined
  xattrs: Map<string, string>
}

/** Path -> thing; hard links are one object; the root is ''. */
export type Shown = Map<string, Thing>

const parentOf = (path: string) => path.slice(0, Math.max(0, path.lastIndexOf('/')))
const nameOf = (path: string) => path.slice(path.lastIndexOf('/') + 1)
const join = (parent: string, name: string) => (parent === '' ? name : `${parent}/${name}`)
const isDir = (of: Thing | undefined) => of !== undefined && (of.mode & S_IFMT) === S_IFDIR
const isBelow = (path: string, top: string) => path !== top && (top === '' || path.startsWith(`${top}/`))
const plainDir = (): Thing => ({ mode: 0o40755, uid: 0, gid: 0, mtime: 0n, text: '', xattrs: new Map() })
const OPAQUE: [string, string][] = [['trusted.overlay.opaque', 'y']]

function remove(tree: Shown, top: string) {
  for (const path of [...tree.keys()]) if (path === top || isBelow(path, top)) tree.delete(path)
}

/** @throws Error where tar, or a person, would give up */
export function unpack(specs: readonly Spec[]): Shown {
  const tree: Shown = new Map([['', plainDir()]])
  // marks go with their directory: directory -> names that are removed below
  const removed = new Map<Thing, Map<string, Thing>>()
  const opaque = new Set<Thing>()
  const later = new Map<Thing, { path: string; to: string }>()
  for (const spec of specs) {
    const { path } = spec
    const names = path.split('/')
    const internal = names.findIndex((name) => name.startsWith('.wh..wh.'))
    const whiteout = names.findIndex((name) => name.startsWith('.wh.') && !name.startsWith('.wh..wh.'))
    if (whiteout >= 0 && whiteout < names.length - 1 && (internal < 0 || whiteout < internal))
      throw new Error('below a whiteout')
    if (internal >= 0 && (internal < names.length - 1 || names[internal] !== '.wh..wh..opq')) continue
    for (let i = 1; i < names.length; i++) {
      const above = names.slice(0, i).join('/')
      if (!tree.has(above)) tree.set(above, plainDir())
      if (!isDir(tree.get(above))) throw new Error('below a file')
    }
    const parent = tree.get(parentOf(path)) as Thing
    const name = nameOf(path)
    if (name === '.wh..wh..opq') {
      opaque.add(parent)
      continue
    }
    if (name.startsWith('.wh.')) {
      const mark: Thing = { ...plainDir(), mode: S_IFCHR, rdev: [0, 0] }
      Object.assign(mark, { uid: spec.uid, gid: spec.gid, mtime: spec.mtime })
      removed.set(parent, (removed.get(parent) ?? new Map()).set(name.slice(4), mark))
      continue
    }
    if (spec.link !== undefined) {
      if (spec.link === path || isBelow(spec.link, path)) throw new Error('itself')
      const target = tree.get(spec.link)
      if (isDir(target)) {
        // judged at the end, as the name may yet be replaced
        remove(tree, path)
        const never: Thing = { ...plainDir(), mode: 0 }
        tree.set(path, never)
        later.set(never, { path, to: '' })
        continue
      }
      const standIn: Thing = { ...plainDir(), mode: 0 }
      remove(tree, path)
      tree.set(path, target ?? standIn)
      if (target === undefined) later.set(standIn, { path, to: spec.link })
      continue
    }
    const mode = spec.mode as number
    const present = tree.get(path)
    const keeps = isDir(present) && (mode & S_IFMT) === S_IFDIR
    if (!keeps) remove(tree, path)
    const thing = keeps ? (present as Thing) : plainDir()
    const xattrs = [...(spec.xattrs ?? [])].filter(([name]) => /^user\.[ab]$/.test(name))
    Object.assign(thing, {
      mode,
      uid: spec.uid,
      gid: spec.gid,
      mtime: spec.mtime,
      rdev: spec.rdev,
      target: spec.target,
      text: typeof spec.bytes === 'string' ? spec.bytes : '',
      xattrs: new Map(xattrs.map(([name, value]) => [name, Buffer.from(value).toString()])),
    })
    tree.set(path, thing)
  }
  for (const [path, thing] of tree) {
    let at = thing
    for (let steps = 0; later.has(at); steps++) {
      if (steps > specs.length) throw new Error('circle')
      const to = tree.get(later.get(at)?.to as string)
      if (to === undefined || isDir(to)) throw new Error('dangling')
      at = to
    }
    tree.set(path, at)
  }
  for (const [path, thing] of [...tree]) {
    for (const [name, mark] of removed.get(thing) ?? []) {
      const present = tree.get(join(path, name))
      if (present === undefined) tree.set(join(path, name), mark)
      else if (isDir(present)) opaque.add(present)
    }
  }
  for (const each of opaque) for (const [name, value] of OPAQUE) each.xattrs.set(name, value)
  return tree
}

/** Lowest first. */
export function overlay(layers: readonly Shown[]): Shown {
  const result: Shown = new Map([['', plainDir()]])
  for (const layer of layers) {
    const clean = new Map<Thing, Thing>()
    const cleaned = (of: Thing) => {
      const known = clean.get(of) ?? {
        ...of,
        xattrs: new Map([...of.xattrs].filter(([name]) => !name.includes('.overlay.'))),
      }
      clean.set(of, known)
      return known
    }
    for (const path of [...layer.keys()].sort((a, b) => a.split('/').length - b.split('/').length)) {
      const thing = layer.get(path) as Thing
      const whiteout = (thing.mode & S_IFMT) === S_IFCHR && thing.rdev?.join() === '0,0'
      const merges = isDir(thing) && isDir(result.get(path)) && !thing.xattrs.has('trusted.overlay.opaque')
      if (path === '' && !merges) for (const each of [...result.keys()]) result.delete(each)
      else if (!merges) remove(result, path)
      if (!whiteout) result.set(path, cleaned(thing))
    }
  }
  return result
}

/** As show.ts shows an image. */
export function shownLines(tree: Shown): string[] {
  const links = new Map<Thing, string[]>()
  const order = [...tree.keys()].sort((a, b) => comparePaths(a, b))
  for (const path of order) {
    const thing = tree.get(path) as Thing
    links.set(thing, [...(links.get(thing) ?? []), path])
  }
  return order.map((path) => {
    const of = tree.get(path) as Thing
    const kind = kinds[of.mode & S_IFMT] ?? 'file'
    const parts = [path || '/', kind, (of.mode & 0o7777).toString(8), `${of.uid}:${of.gid}`, `${of.mtime}`]
    if (of.rdev) parts.push(of.rdev.join(':'))
    if (kind === 'symlink') parts.push(`-> ${of.target}`)
    if (kind === 'file') parts.push(of.text === '' ? '0' : JSON.stringify(of.text))
    for (const [name, value] of [...of.xattrs].sort(([a], [b]) => (a < b ? -1 : 1))) parts.push(`${name}=${value}`)
    const names = links.get(of) as string[]
    if (names.length > 1) parts.push(`(${names.length} links of ${names[0]})`)
    return parts.join(' ')
  })
}

const kinds: Record<number, string> = {
  [S_IFDIR]: 'dir',
  [S_IFLNK]: 'symlink',
  [S_IFCHR]: 'char',
  [S_IFBLK]: 'block',
  [S_IFIFO]: 'fifo',
}

/** A directory before its contents, siblings by their bytes. */
function comparePaths(a: string, b: string): number {
  const [as, bs] = [a, b].map((path) => (path === '' ? [] : path.split('/').map((name) => Buffer.from(name)))) as [
    Buffer[],
    Buffer[],
  ]
  for (let i = 0; i < Math.min(as.length, bs.length); i++) {
    const order = Buffer.compare(as[i] as Buffer, bs[i] as Buffer)
    if (order !== 0) return order
  }
  return as.length - bs.length
}
