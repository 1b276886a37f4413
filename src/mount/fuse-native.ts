// fuse-native, the npm package, as far as the portable rung uses it. It ships no types, and some of its ways are changed here:
// - It brings libfuse 2 and does not tell the loader where it lies.
// - It unmounts by `fusermount -uz` in a shell, which is lazy always and not everywhere; unmounting is the session's.
// - Its getxattr and listxattr answer more bytes than were asked for when a value does not fit, from behind their buffer.
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { Failure } from '../errors.ts'

export interface FuseStat {
  mode: number
  ino: number
  uid?: number
  gid?: number
  nlink?: number
  /** Bytes. */
  size?: number
  /** Of 512 bytes. */
  blocks?: number
  blksize?: number
  /** As the kernel encodes it in 32 bits. */
  rdev?: number
  /** Milliseconds since 1970, not below 0. */
  atime?: number
  mtime?: number
  ctime?: number
}

export interface FuseStatfs {
  bsize: number
  frsize: number
  blocks: number
  files: number
  namemax: number
}

/** An errno, negative; 0 (of read: the number of bytes) is success. */
type Done<T extends unknown[] = []> = (code: number, ...result: Partial<T>) => void

/** What is asked. Paths begin with a slash; `fd` is what open answered, or 0. */
export interface FuseOperations {
  access(path: string, mode: number, done: Done): void
  statfs(path: string, done: Done<[FuseStatfs]>): void
  getattr(path: string, done: Done<[FuseStat]>): void
  readdir(path: string, done: Done<[names: string[], stats: FuseStat[]]>): void
  readlink(path: string, done: Done<[string]>): void
  open(path: string, flags: number, done: Done<[fd: number]>): void
  read(path: string, fd: number, into: Uint8Array, length: number, at: number, done: Done): void
  /** Of an xattr that is not there, nothing. */
  getxattr(path: string, name: string, done: Done<[Uint8Array | undefined]>): void
  listxattr(path: string, done: Done<[string[]]>): void
}

export interface FuseMount {
  /** Mounts, on this very thread; `done` runs when requests are answered. */
  mount(done: (error: Error | null) => void): void
  /** Lets go of a mount that has ended, so that the process can end. */
  unmount(done: (error: Error | null) => void): void
}

/** Answers an xattr request: a size or a negative errno, and the buffer of the request. */
type XattrSignal = (code: number, buffer: ArrayBufferLike) => void

interface FuseBase extends FuseMount {
  ops: FuseOperations
}

interface FuseNative {
  new (dir: string, operations: FuseOperations, options: Record<string, unknown>): FuseBase
  unmount(dir: string, done: (error: Error | null) => void): void
}

const ENODATA = 61
const ERANGE = 34

/** @throws Failure unsupported: this machine has no libfuse 2, or not for this processor */
export function loadFuseNative(): new (
  dir: string,
  operations: FuseOperations,
  options: Record<string, unknown>,
) => FuseMount {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw Failure.unsupported('fuse-native cannot be loaded', {
      why: `its libfuse is for Linux on x64, this is ${process.platform} on ${process.arch}`,
      fix: 'Use --mount fuse.',
    })
  }
  const FuseNative = load()
  FuseNative.unmount = (_, done) => done(null)

  return class extends FuseNative {
    _op_getxattr(signal: XattrSignal, path: string, name: string, into: Buffer): void {
      this.ops.getxattr(path, name, (code, value) => {
        if (code !== 0) signal(code, into.buffer)
        else if (value === undefined) signal(-ENODATA, into.buffer)
        else signal(put(value, into), into.buffer)
      })
    }

    _op_listxattr(signal: XattrSignal, path: string, into: Buffer): void {
      this.ops.listxattr(path, (code, names = []) => {
        const list = Buffer.from(names.map((each) => `${each}\0`).join(''))
        signal(code === 0 ? put(list, into) : code, into.buffer)
      })
    }
  }
}

/** xattr(7): an empty buffer asks for the size alone. */
function put(value: Uint8Array, into: Buffer): number {
  if (into.length === 0) return value.length
  if (value.length > into.length) return -ERANGE
  into.set(value)
  return value.length
}

function load(): FuseNative {
  const require = createRequire(import.meta.url)
  const RTLD_NODELETE = 0x1000 // dlfcn.h; keeps it when node finds that it is no addon
  try {
    const bundled = join(dirname(require.resolve('fuse-native')), 'prebuilds', `linux-${process.arch}`, 'libfuse.so')
    // loaded first, it is found by its soname
    process.dlopen({ exports: {} }, bundled, constants.dlopen.RTLD_NOW | RTLD_NODELETE)
  } catch {
    // always: it is no addon. Where it could not be loaded at all, the next lines fail and name it.
  }
  try {
    return require('fuse-native') as FuseNative // the package is pinned, and its source was read
  } catch (cause) {
    throw Failure.unsupported('fuse-native cannot be loaded', {
      cause,
      fix: 'Install lazylayer again, or run npm ci in a checkout; it needs glibc.',
    })
  }
}
