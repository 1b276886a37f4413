// What of the native module programs of the system can do where the addon cannot be loaded: enough to read images, and to mount one on
// the portable rung.
import { execFile, spawnSync } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Failure } from '../errors.ts'
import { loadNative, type NativeModule } from './native.ts'

/** As long as the addon waits. */
const STAT_TIMEOUT_MS = 1_000
/** Each makes a handful of system calls. */
const PROGRAM_TIMEOUT_MS = 10_000
const UNMOUNTERS = ['umount', 'fusermount3', 'fusermount'] as const

const run = promisify(execFile)

/** The addon, or what there is without it; what mounts says what is lost. */
export function openNative(): NativeModule {
  try {
    return loadNative()
  } catch (cause) {
    return withoutAddon(cause)
  }
}

/** @param cause why the addon is not there, which is the reason of every mount that needs it */
function withoutAddon(cause: unknown): NativeModule {
  const absent = (): never => {
    throw Failure.system('the native part cannot be loaded', {
      cause,
      fix: 'Build it with npm run build in a checkout (it needs Rust), and install that again; --mount portable works without it.',
    })
  }
  return {
    openFuse: absent,
    mountFuse: absent,
    mountFuseByHelper: async () => absent(),
    mountErofs: async () => absent(),
    sendDescriptors: absent,
    bindReadOnly: async () => absent(),
    cachedParts: async () => absent(),
    Session: class {
      constructor() {
        absent()
      }
    } as unknown as NativeModule['Session'], // cannot be made, so it needs no methods
    unmount,
    isDead,
    tryLock,
    disk: null,
    usualTrees: null,
    setReadAhead: () => false,
  }
}

async function unmount(dir: string, lazy: boolean): Promise<void> {
  const failures: string[] = []
  for (const program of UNMOUNTERS) {
    const flags = program === 'umount' ? ['--no-canonicalize', ...(lazy ? ['--lazy'] : [])] : [lazy ? '-uz' : '-u']
    try {
      await run(program, [...flags, '--', dir], { timeout: PROGRAM_TIMEOUT_MS, env: { ...process.env, LC_ALL: 'C' } })
      return
    } catch (error) {
      failures.push(error instanceof Error ? error.message.trim() : String(error))
    }
  }
  const text = failures.join('; ')
  throw Object.assign(new Error(text), { code: codeOf(text) })
}

/** These programs say what went wrong in words only. */
function codeOf(text: string): string {
  if (/busy/.test(text)) return 'EBUSY'
  return /not mounted|not found in/.test(text) ? 'EINVAL' : 'EPERM'
}

async function isDead(dir: string): Promise<boolean> {
  const dead = stat(dir).then(
    () => false,
    (error) => error.code === 'ENOTCONN',
  )
  return await Promise.race([dead, sleep(STAT_TIMEOUT_MS, false, { ref: false })])
}

/** By util-linux's flock on the inherited descriptor: the lock is the open file's, and stays when the program ends. */
function tryLock(fd: number, exclusive: boolean): boolean {
  const { status, error } = spawnSync('flock', ['--nonblock', exclusive ? '--exclusive' : '--shared', '3'], {
    stdio: ['ignore', 'ignore', 'ignore', fd],
    timeout: PROGRAM_TIMEOUT_MS,
  })
  if (status === 0) return true
  if (status === 1) return false
  throw Failure.system('the cache cannot be locked', {
    why: `flock (util-linux), which stands in for the native part, failed${error ? `: ${error.message}` : ` with ${status}`}`,
    fix: 'Install util-linux, or build the native part with npm run build.',
  })
}
