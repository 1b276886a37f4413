// The machine that doctor looks at, for real.
import { constants, type Stats } from 'node:fs'
import { access, readdir, realpath, stat, statfs } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Failure } from '../../errors.ts'
import { isAbsent, readText } from '../../registry/file.ts'
import type { Files, Seen } from './check.ts'

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
