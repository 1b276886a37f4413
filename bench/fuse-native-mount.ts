// The comparator: SOURCE shown read-only at DIR through fuse-native, as good as that library gets. Prints one line when ready,
// unmounts on SIGTERM.
//
//   node bench/fuse-native-mount.ts SOURCE DIR async|sync
//
// At its best means: attributes, names and link targets come from memory, as a lazy agent's would from its index; the kernel may
// keep entries, attributes and pages for ever; no operation has a timer. `async` reads with fs.read, as a server must that also
// has other things to do; `sync` with fs.readSync, which saves the way over the thread pool and stops everything else meanwhile:
// nobody can serve cold bytes that way, but it is the most that this library can do with warm ones.
import { execFileSync } from 'node:child_process'
import { closeSync, lstatSync, openSync, read, readdirSync, readlinkSync, readSync, type Stats } from 'node:fs'
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'

type Callback<T> = (errno: number, value?: T) => void

/** The part of fuse-native that is used here; it ships no types. */
interface Operations {
  getattr(path: string, done: Callback<Stats>): void
  readdir(path: string, done: Callback<string[]>): void
  readlink(path: string, done: Callback<string>): void
  open(path: string, flags: number, done: Callback<number>): void
  read(path: string, fd: number, into: Uint8Array, length: number, at: number, done: Callback<number>): void
  release(path: string, fd: number, done: Callback<never>): void
}

type FuseNative = new (
  dir: string,
  operations: Operations,
  options: Record<string, unknown>,
) => { mount(done: (error: Error | null) => void): void }

const ENOENT = -2
const EIO = -5
/** Seconds; about 30 years. */
const FOREVER = 1e9

interface Known {
  attributes: Stats
  names?: string[]
  target?: string
}

function remember(root: string): Map<string, Known> {
  const known = new Map<string, Known>()
  const visit = (path: string) => {
    const at = join(root, path)
    const attributes = lstatSync(at)
    if (attributes.isDirectory()) {
      const names = readdirSync(at)
      known.set(path, { attributes, names })
      for (const name of names) visit(path === '/' ? `/${name}` : `${path}/${name}`)
    } else if (attributes.isSymbolicLink()) {
      known.set(path, { attributes, target: readlinkSync(at) })
    } else {
      known.set(path, { attributes })
    }
  }
  visit('/')
  return known
}

// The library takes the count of bytes as the first argument, where errors go.
const reads: Record<string, Operations['read']> = {
  async: (_path, fd, into, length, at, done) =>
    read(fd, into, 0, length, at, (error, count) => done(error ? EIO : count)),
  sync: (_path, fd, into, length, at, done) => {
    let count = EIO
    try {
      count = readSync(fd, into, 0, length, at)
    } finally {
      done(count)
    }
  },
}

function operations(root: string, reading: Operations['read']): Operations {
  const known = remember(root)
  return {
    getattr(path, done) {
      const found = known.get(path)
      return found ? done(0, found.attributes) : done(ENOENT)
    },
    readdir(path, done) {
      const found = known.get(path)?.names
      return found ? done(0, found) : done(ENOENT)
    },
    readlink(path, done) {
      const found = known.get(path)?.target
      return found === undefined ? done(ENOENT) : done(0, found)
    },
    open(path, _flags, done) {
      try {
        done(0, openSync(join(root, path), 'r'))
      } catch {
        done(EIO)
      }
    },
    read: reading,
    release(_path, fd, done) {
      closeSync(fd)
      done(0)
    },
  }
}

const [source, dir, how] = process.argv.slice(2)
const reading = reads[how ?? '']
if (source === undefined || dir === undefined || reading === undefined) {
  process.stderr.write('usage: fuse-native-mount.ts SOURCE DIR async|sync\n')
  process.exit(2)
}
/** fuse-native brings libfuse 2 and does not tell the loader where it lies: load it first, and it is found by its soname. */
function loadFuseNative(): FuseNative {
  const require = createRequire(import.meta.url)
  const bundled = join(dirname(require.resolve('fuse-native')), 'prebuilds', `linux-${process.arch}`, 'libfuse.so')
  const RTLD_NODELETE = 0x1000 // dlfcn.h; keeps it when node finds that it is no addon
  try {
    process.dlopen({ exports: {} }, bundled, constants.dlopen.RTLD_NOW | RTLD_NODELETE)
  } catch {
    // always: it is no addon. Where it could not be loaded at all, the next line fails and names it.
  }
  return require('fuse-native') as FuseNative
}

const Fuse = loadFuseNative()
const fuse = new Fuse(dir, operations(source, reading), {
  timeout: false,
  kernelCache: true,
  noforget: true,
  entryTimeout: FOREVER,
  attrTimeout: FOREVER,
  maxRead: 128 << 10, // libfuse 2's largest
})
process.on('SIGTERM', () => {
  execFileSync('umount', ['-l', dir]) // umount2 only: it looks at the mount table, not into the mount that this very thread serves
  process.exit(0)
})
fuse.mount((error) => {
  if (error) throw error
  process.stdout.write('ready\n')
})
