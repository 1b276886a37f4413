// Mounts that are processes: started, waited for until they say that they are ready, and ended without leaving a mount behind.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { Failure } from '../src/errors.ts'

const run = promisify(execFile)

export interface Mounted {
  /** From starting the process until it printed its line. */
  readySeconds: number
  stop(): Promise<void>
}

const READY_TIMEOUT_MS = 120_000
const STOP_TIMEOUT_MS = 10_000
/** Enough for an error in three lines with its causes. */
const COMPLAINT_MAX_CHARS = 4096

/**
 * Runs `words` with this Node; the process mounts `dir`, then prints a line on stdout and stays.
 * @param through a program that runs it, with its first arguments
 * @throws Failure unavailable (ended before it was ready), timeout
 */
export async function startMount(
  words: readonly string[],
  dir: string,
  environment: Readonly<Record<string, string>> = {},
  through: readonly string[] = [],
): Promise<Mounted> {
  const started = performance.now()
  const env = { ...process.env, ...environment }
  const [program = '', ...rest] = [...through, process.execPath, ...words]
  const child = spawn(program, rest, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const end = () => void child.kill('SIGTERM') // a benchmark that is interrupted leaves no server behind
  process.once('exit', end)
  child.once('exit', () => process.off('exit', end))
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(-COMPLAINT_MAX_CHARS)
  })
  const late = AbortSignal.timeout(READY_TIMEOUT_MS)
  try {
    await Promise.race([
      once(child.stdout, 'data', { signal: late }),
      once(child, 'exit').then(() => Promise.reject(new Error(complaint.trim() || 'it ended without a word'))),
    ])
  } catch (cause) {
    await endMount(child, dir)
    if (late.aborted) throw Failure.timeout('the mount did not become ready', { cause })
    throw Failure.unavailable('the mount ended before it was ready', { cause })
  }
  child.stdout.resume()
  return { readySeconds: (performance.now() - started) / 1000, stop: () => endMount(child, dir) }
}

/** fuse-native on `source`; `read` says how the comparator gets at bytes. */
export function mountFuseNative(source: string, dir: string, read: 'async' | 'sync'): Promise<Mounted> {
  return startMount([`${import.meta.dirname}/fuse-native-mount.ts`, source, dir, read], dir)
}

/** Ends the process that mounted `dir`, and the mount where it stays. */
export async function endMount(child: ChildProcess, dir: string): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill('SIGTERM')
    try {
      await once(child, 'exit', { signal: AbortSignal.timeout(STOP_TIMEOUT_MS) })
    } catch {
      child.kill('SIGKILL') // it had its time
    }
  }
  if ((await mountsBelow(dir)).length > 0) await run('umount', ['-l', dir])
}

interface MountPoint {
  dir: string
  type: string
}

/** Mounts at `dir` and below, innermost last. */
export async function mountsBelow(dir: string): Promise<MountPoint[]> {
  // proc(5): ID parent major:minor root MOUNT-POINT options [optional…] - TYPE source options; blanks are octal
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).trimEnd().split('\n')
  return lines
    .map((line) => ({
      dir: (line.split(' ')[4] ?? '').replace(/\\([0-7]{3})/g, (_, octal) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      ),
      type: line.split(' - ')[1]?.split(' ')[0] ?? '',
    }))
    .filter((each) => each.dir === dir || each.dir.startsWith(`${dir}/`))
}

/** Detaches what an earlier run that was killed left in `dir`. */
export async function detachBelow(dir: string): Promise<void> {
  for (const each of (await mountsBelow(dir)).reverse()) await run('umount', ['-l', each.dir])
}
