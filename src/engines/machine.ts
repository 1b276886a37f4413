// Files of the machine that engines and we are configured by. None that hangs is waited for.
import { constants, type Stats } from 'node:fs'
import { access, readdir, realpath, stat, statfs } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Failure } from '../errors.ts'
import { isAbsent, readText } from '../registry/file.ts'

/** Files of the system. */
export interface Files {
  /** Text of a small file; undefined where there is none. @throws Failure */
  read(path: string): Promise<string | undefined>
  /** Undefined where there is none. */
  look(path: string): Promise<Seen | undefined>
  /** Bytes that this user may still write on the filesystem of `path`, and the filesystem's type (statfs.f_type). @throws Failure system, timeout */
  space(path: string): Promise<{ free: number; type: number }>
  /** In the order of their names; [] where there is no such directory. */
  list(dir: string): Promise<string[]>
}

export interface Seen {
  /** `dead`: a mount whose server is gone; `hung`: it does not answer; `closed`: not for this user. */
  kind: 'directory' | 'file' | 'device' | 'other' | 'dead' | 'hung' | 'closed'
  uid: number
  /** Permission bits, setuid included. */
  mode: number
  /** Whether this user may read and write it; whether it may run it. */
  writable: boolean
  executable: boolean
}

/** A mount whose server hangs does not answer. */
const LOOK_TIMEOUT_MS = 2_000

export const machineFiles: Files = {
  read: (path) => within(readText(path), path),
  look: (path) => Promise.race([look(path), sleep(LOOK_TIMEOUT_MS, HUNG, { ref: false })]),
  async space(path) {
    const asked = statfs(path).catch((cause) => {
      throw Failure.system(`${path} cannot be asked for its free space`, { cause })
    })
    const found = await within(asked, path)
    return { free: found.bavail * found.bsize, type: found.type }
  },
  async list(dir) {
    try {
      return (await within(readdir(dir), dir)).sort()
    } catch (error) {
      if (isAbsent(error)) return []
      throw error
    }
  },
}

/** @throws Failure timeout: `path` hangs */
export async function within<T>(asked: Promise<T>, path: string): Promise<T> {
  const late = Symbol()
  const found = await Promise.race([asked, sleep(LOOK_TIMEOUT_MS, late, { ref: false })])
  if (found === late) throw Failure.timeout(`${path} does not answer`)
  return found as T // it is not `late`
}

/** Without symlinks; as it is where that cannot be found out. */
export async function realPath(path: string): Promise<string> {
  const found = realpath(path).catch(() => path)
  return await Promise.race([found, sleep(LOOK_TIMEOUT_MS, path, { ref: false })])
}

const NOTHING = { uid: -1, mode: 0, writable: false, executable: false }
const HUNG: Seen = { kind: 'hung', ...NOTHING }

async function look(path: string): Promise<Seen | undefined> {
  let found: Stats
  try {
    found = await stat(path)
  } catch (error) {
    if (isAbsent(error)) return undefined
    const dead = error instanceof Error && 'code' in error && error.code === 'ENOTCONN'
    return { kind: dead ? 'dead' : 'closed', ...NOTHING }
  }
  const may = (mode: number) =>
    access(path, mode).then(
      () => true,
      () => false,
    )
  return {
    kind: kindOf(found),
    uid: found.uid,
    mode: found.mode & 0o7777,
    writable: await may(constants.R_OK | constants.W_OK),
    executable: found.isFile() && (await may(constants.X_OK)),
  }
}

function kindOf(found: Stats): Seen['kind'] {
  if (found.isDirectory()) return 'directory'
  if (found.isFile()) return 'file'
  return found.isCharacterDevice() ? 'device' : 'other'
}
