// The measuring program (programs/probe.c), compiled at the start of a run, each measurement a process of its own.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Failure } from '../src/errors.ts'

const run = promisify(execFile)

export interface Walked {
  entries: number
  files: number
  bytes: number
  seconds: number
}

export interface Read {
  /** A pass. */
  bytes: number
  /** The fastest pass. */
  seconds: number
  /** Share of the file's pages in memory before it was read, 0 to 1; with files below, pages of theirs count as its own. */
  resident: number
}

/** What becomes of a file's own pages: left alone; given back once and read in again; given back before each pass. */
export type Pages = 'keep' | 'refill' | 'drop'

export interface Probe {
  /** The program itself: static, so that it also runs from inside an image. */
  path: string
  /** `walk`: readdir and stat. `readall`: and open, read, close of every file. */
  tree(what: 'walk' | 'readall', dir: string): Promise<Walked>
  /** Reads the files that `list` names, by `program`, which is the probe or a copy of it. */
  list(program: string, dir: string, list: string): Promise<Walked>
  /** Seconds that a file of the list takes. */
  times(dir: string, list: string): Promise<{ median: number; p99: number }>
  /** `below`: files whose pages are given back with the file's own. */
  sequential(file: string, bufferBytes: number, passes: number, pages: Pages, below?: readonly string[]): Promise<Read>
  /** Maps the file and touches the byte at `offset`, as a program that is started touches its libraries. */
  fault(file: string, offset: number): Promise<void>
  /** Bytes of the files' pages that are in memory; `forget` gives them back before, and returns what would not go. */
  pages(what: 'resident' | 'forget', files: readonly string[]): Promise<number>
}

/** The slowest measurement takes seconds; a mount that hangs must not hang the benchmark. */
const TIMEOUT_MS = 120_000

/** @throws Failure missing (no compiler), system */
export async function compileProbe(dir: string): Promise<Probe> {
  const path = join(dir, 'probe')
  try {
    await run('cc', ['-O2', '-static', '-o', path, join(import.meta.dirname, 'programs/probe.c')])
  } catch (cause) {
    throw Failure.missing('the measuring program cannot be compiled', {
      cause,
      fix: 'Install a C compiler and the static C library (Debian: apt-get install gcc libc6-dev).',
    })
  }
  const call = async (program: string, ...words: string[]): Promise<Record<string, number>> => {
    const { stdout } = await run(program, words, { timeout: TIMEOUT_MS, killSignal: 'SIGKILL' })
    return JSON.parse(stdout)
  }
  const field = (from: Record<string, number>, name: string): number => {
    const value = from[name]
    if (value === undefined) throw new Error(`assertion: the probe prints ${name}`)
    return value
  }
  const walked = (from: Record<string, number>): Walked => ({
    entries: field(from, 'entries'),
    files: field(from, 'files'),
    bytes: field(from, 'bytes'),
    seconds: field(from, 'seconds'),
  })
  return {
    path,
    tree: async (what, root) => walked(await call(path, what, root)),
    // By a shell's exec: Node's own spawn blocks this thread until the exec is done, and the registry that a program inside a
    // lazy mount is fetched from runs on this thread.
    list: async (program, root, list) =>
      walked(await call('/bin/sh', '-c', 'exec "$0" "$@"', program, 'readlist', root, list)),
    times: async (root, list) => {
      const took = await call(path, 'times', root, list)
      return { median: field(took, 'median'), p99: field(took, 'p99') }
    },
    sequential: async (file, bufferBytes, passes, pages, below = []) => {
      const read = await call(path, 'seq', file, String(bufferBytes), String(passes), pages, ...below)
      return { bytes: field(read, 'bytes'), seconds: field(read, 'seconds'), resident: field(read, 'resident') }
    },
    fault: async (file, offset) => void (await call(path, 'fault', file, String(offset))),
    pages: async (what, files) => field(await call(path, what, ...files), 'bytes'),
  }
}
