// What a store writes below a folder, call by call, and what a disk may hold of it after any of these calls: for tests of kills, which lose
// nothing that was written, and of power cuts. A power cut keeps what was synced, and of the rest
//
//   names      as a journal does: those made before some moment, which is no earlier than the last sync of a folder
//   contents   of each write all, nothing, or some of its sectors; what a file was made longer by and has not is zeros
import nodeFs, { mkdirSync, writeFileSync } from 'node:fs'
import fs, { type FileHandle } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { join, relative } from 'node:path'
import { afterEach, beforeEach } from 'vitest'
import type { Random } from '../soak/random.ts'

const SECTOR_BYTES = 512

type Op =
  | { of: 'name'; do: 'folder' | 'file' | 'gone'; path: string; node?: number }
  | { of: 'name'; do: 'move'; path: string; to: string }
  | { of: 'node'; node: number; at: number; bytes: Uint8Array }
  | { of: 'node'; node: number; cut: number }
  | { of: 'sync'; node: number | 'names' }
  | { of: 'note'; note: unknown }

/** Names of a folder: the number of a file, or that it is a folder. */
type Names = Map<string, number | 'folder'>

function apply(names: Names, op: Op & { of: 'name' }): void {
  if (op.do === 'move') {
    for (const [path, what] of [...names]) {
      if (path !== op.path && !path.startsWith(`${op.path}/`)) continue
      names.delete(path)
      names.set(op.to + path.slice(op.path.length), what)
    }
  } else if (op.do === 'gone') names.delete(op.path)
  else names.set(op.path, op.do === 'folder' ? 'folder' : (op.node as number)) // a file has one
}

type Calls = Record<string, (...args: never[]) => unknown>
/** A call that has ended, or will. */
type After = (self: { fd: number }, args: unknown[], result: unknown) => void

export class WriteLog {
  readonly #root: string
  readonly #ops: Op[] = []
  readonly #names: Names = new Map()
  /** By descriptor: what is open, and where in it. */
  readonly #open = new Map<number, { node: number | 'names'; at: number }>()
  readonly #lengths: number[] = []
  readonly #restores: (() => void)[] = []

  private constructor(root: string) {
    this.#root = root
  }

  /** Of all calls by which this process changes something below `root`, which is a folder, until `end` is called. */
  static async begin(root: string): Promise<WriteLog> {
    const log = new WriteLog(root)
    log.#watch(fs, await handlePrototype())
    return log
  }

  end(): void {
    for (const restore of this.#restores.splice(0)) restore()
    syncBuiltinESMExports()
  }

  /** Is among the notes of each moment from now on. */
  note(note: unknown): void {
    this.#ops.push({ of: 'note', note })
  }

  /** Moments after which something is different on disk, in order. */
  moments(): number[] {
    return this.#ops.flatMap(({ of }, i) => (of === 'name' || of === 'node' ? [i + 1] : []))
  }

  notes(moment: number): unknown[] {
    return this.#ops.slice(0, moment).flatMap((op) => (op.of === 'note' ? [op.note] : []))
  }

  /** Writes what is on disk at a moment into a new folder `to`. @param chance what a power cut keeps; none: a kill */
  restore(moment: number, to: string, chance?: Random): void {
    const ops = this.#ops.slice(0, moment)
    const forced = ops.findLastIndex((op) => op.of === 'sync' && op.node === 'names')
    const kept = chance === undefined ? moment : forced + 1 + chance.below(moment - forced)
    const names: Names = new Map()
    for (const op of ops.slice(0, kept)) if (op.of === 'name') apply(names, op)
    mkdirSync(to)
    for (const path of [...names.keys()].sort()) {
      const node = names.get(path) as number | 'folder' // it is there
      if (node === 'folder') mkdirSync(join(to, path), { mode: 0o700 })
      else writeFileSync(join(to, path), contents(ops, node, chance), { mode: 0o600 })
    }
  }

  #watch(promises: object, handles: object): void {
    const named = (path: unknown) => this.#inside(path)
    const name = (op: Op & { of: 'name' }) => {
      apply(this.#names, op)
      this.#ops.push(op)
    }
    const opened = (fd: number, given: unknown, flags: unknown) => {
      const path = named(given)
      if (path === undefined) return
      let node = this.#names.get(path)
      if (node === undefined && String(flags).startsWith('w')) {
        node = this.#lengths.push(0) - 1
        name({ of: 'name', do: 'file', path, node })
      }
      if (path === '' || node === 'folder') this.#open.set(fd, { node: 'names', at: 0 })
      else if (node !== undefined) this.#open.set(fd, { node, at: flags === 'a' ? (this.#lengths[node] ?? 0) : 0 })
    }
    const written = (fd: number, bytes: Uint8Array, at?: number | null) => {
      const file = this.#open.get(fd)
      if (file === undefined || file.node === 'names') return
      const from = at ?? file.at
      if (at === undefined || at === null) file.at += bytes.length
      this.#lengths[file.node] = Math.max(this.#lengths[file.node] ?? 0, from + bytes.length)
      this.#ops.push({ of: 'node', node: file.node, at: from, bytes: bytes.slice() })
    }
    const cut = (fd: number, length: number) => {
      const node = this.#open.get(fd)?.node
      if (node === undefined || node === 'names') return
      this.#lengths[node] = length
      this.#ops.push({ of: 'node', node, cut: length })
    }
    const synced = (fd: number) => {
      const node = this.#open.get(fd)?.node
      if (node !== undefined) this.#ops.push({ of: 'sync', node })
    }
    const gone = (given: unknown) => {
      const path = named(given)
      const below = [...this.#names.keys()].filter((each) => each === path || each.startsWith(`${path}/`))
      for (const each of below.sort().reverse()) name({ of: 'name', do: 'gone', path: each })
    }
    const moved = (from: unknown, given: unknown) => {
      const [path, to] = [named(from), named(given)]
      if (path === undefined || to === undefined) return
      const op = { of: 'name', do: 'move', path, to } as const
      name(op)
    }
    const all: Record<string, After> = {
      mkdir: (_, [given]) => {
        const path = named(given)
        if (path) name({ of: 'name', do: 'folder', path })
      },
      open: (_, [path, flags], handle) => opened((handle as FileHandle).fd, path, flags),
      rename: (_, [from, to]) => moved(from, to),
      link: (_, [from, to]) => {
        const node = this.#names.get(named(from) ?? '')
        const path = named(to)
        if (typeof node === 'number' && path !== undefined) name({ of: 'name', do: 'file', path, node })
      },
      rm: (_, [path]) => gone(path),
      unlink: (_, [path]) => gone(path),
      writeFile: (_, [given, text]) => {
        const path = named(given)
        if (path === undefined) return
        opened(-1, given, 'w')
        cut(-1, 0)
        written(-1, Buffer.from(text as string), 0)
        this.#open.delete(-1)
      },
    }
    for (const [call, after] of Object.entries(all)) this.#after(promises, call, after)
    const ofHandles: Record<string, After> = {
      write: ({ fd }, [bytes, at = 0, length, position]) => {
        const all = bytes as Uint8Array
        const part = new Uint8Array(all.buffer, all.byteOffset, all.byteLength)
        const from = at as number
        written(fd, part.subarray(from, from + ((length as number) ?? part.length)), position as number)
      },
      writeFile: ({ fd }, [bytes]) => written(fd, Buffer.from(bytes as string)),
      appendFile: ({ fd }, [bytes]) => written(fd, Buffer.from(bytes as string)),
      truncate: ({ fd }, [length = 0]) => cut(fd, length as number),
      sync: ({ fd }) => synced(fd),
      datasync: ({ fd }) => synced(fd),
    }
    for (const [call, after] of Object.entries(ofHandles)) this.#after(handles, call, after)
    this.#before(handles, 'close', ({ fd }) => void this.#open.delete(fd))
    this.#before(nodeFs, 'closeSync', (_, [fd]) => void this.#open.delete(fd as number))
    this.#after(nodeFs, 'openSync', (_, [path, flags], fd) => opened(fd as number, path, flags))
    this.#after(nodeFs, 'writeSync', (_, [fd, bytes, at = 0, length, position]) => {
      const all = typeof bytes === 'string' ? Buffer.from(bytes) : (bytes as Uint8Array)
      const from = typeof bytes === 'string' ? 0 : (at as number)
      const part = new Uint8Array(all.buffer, all.byteOffset, all.byteLength)
      written(fd as number, part.subarray(from, from + ((length as number) ?? part.length)), position as number)
    })
    this.#after(nodeFs, 'ftruncateSync', (_, [fd, length]) => cut(fd as number, length as number))
    syncBuiltinESMExports()
  }

  /** A path below the root; '' is the root. Undefined: it is not of it. */
  #inside(path: unknown): string | undefined {
    const from = typeof path === 'string' ? relative(this.#root, path) : '..'
    return from.startsWith('..') ? undefined : from
  }

  /** Notes zeros where holes were punched. */
  punched(fd: number, ranges: Float64Array): void {
    for (let i = 0; i + 1 < ranges.length; i += 2) {
      const [start = 0, end = 0] = ranges.subarray(i, i + 2)
      const file = this.#open.get(fd)
      if (typeof file?.node === 'number') {
        this.#ops.push({ of: 'node', node: file.node, at: start, bytes: new Uint8Array(end - start) })
      }
    }
  }

  #after(of: object, name: string, after: After): void {
    this.#replace(of, name, (original) => {
      return function (this: { fd: number }, ...args: never[]) {
        const result = original.apply(this, args)
        if (!(result instanceof Promise)) {
          after(this, args, result)
          return result
        }
        return result.then((value) => {
          after(this, args, value)
          return value
        })
      }
    })
  }

  #before(of: object, name: string, before: (self: { fd: number }, args: unknown[]) => void): void {
    this.#replace(of, name, (original) => {
      return function (this: { fd: number }, ...args: never[]) {
        before(this, args)
        return original.apply(this, args)
      }
    })
  }

  #replace(
    of: object,
    name: string,
    by: (original: (...args: never[]) => unknown) => (...args: never[]) => unknown,
  ): void {
    const calls = of as Calls
    const original = calls[name] as (...args: never[]) => unknown
    calls[name] = by(original)
    this.#restores.push(() => {
      calls[name] = original
    })
  }
}

async function handlePrototype(): Promise<FileHandle> {
  const probe = await fs.open('/')
  await probe.close()
  return Object.getPrototypeOf(probe) // of all handles
}

/** A disk takes its time for each sync, and what is made to be looked at needs none. @returns what makes them work again */
async function withoutSyncs(): Promise<() => void> {
  const handles = await handlePrototype()
  const { sync, datasync } = handles
  handles.sync = handles.datasync = async () => {}
  return () => Object.assign(handles, { sync, datasync })
}

/** For all tests of a file: syncs cost nothing, and what a test records ends with it. @returns what begins to record below a folder */
export function recording(): (root: string) => Promise<WriteLog> {
  let log: WriteLog | undefined
  let restore: () => void
  beforeEach(async () => {
    restore = await withoutSyncs()
  })
  afterEach(() => {
    log?.end()
    restore()
  })
  return async (root) => {
    log = await WriteLog.begin(root)
    return log
  }
}

/** Of a file after these calls. */
function contents(ops: readonly Op[], node: number, chance: Random | undefined): Uint8Array {
  const synced = ops.findLastIndex((op) => op.of === 'sync' && op.node === node)
  let bytes: Uint8Array = new Uint8Array()
  for (const [i, op] of ops.entries()) {
    if (op.of !== 'node' || op.node !== node) continue
    if ('cut' in op) {
      if (chance !== undefined && i > synced && chance.below(2) === 0) continue
      bytes = resized(bytes, op.cut)
      continue
    }
    const end = Math.max(bytes.length, op.at + op.bytes.length)
    const how = chance === undefined || i < synced ? 'whole' : chance.oneOf(['whole', 'nothing', 'torn'])
    if (how === 'nothing') continue
    bytes = resized(bytes, end)
    if (how === 'whole') bytes.set(op.bytes, op.at)
    else {
      for (let from = 0; from < op.bytes.length; from += SECTOR_BYTES) {
        if (chance?.below(2) === 0) bytes.set(op.bytes.subarray(from, from + SECTOR_BYTES), op.at + from)
      }
    }
  }
  return bytes
}

function resized(bytes: Uint8Array, length: number): Uint8Array {
  const made = new Uint8Array(length)
  made.set(bytes.subarray(0, length))
  return made
}
