// Finds the user behind a lookup. FUSE names the thread that asks; it names the thread's user only to servers without idmapped mounts.
import { readFile } from 'node:fs/promises'
import { AskLimit, ROOT_UID } from './ask-limit.ts'

/** Who asks, by user ID; or that it is one who asked too often. */
export type Asker = (pid: number) => Promise<number | 'refused'>

/** For a store that nobody but its owner reaches. */
export const onlyRootAsks: Asker = async () => ROOT_UID

/** For a store that others reach, who are not to ask too often. */
export function askers(log: (message: string) => void): Asker {
  const limit = new AskLimit(log, () => performance.now())
  return async (pid) => {
    const uid = await userOf(pid)
    return limit.takes(uid) ? uid : 'refused'
  }
}

/** Threads whose user cannot be found out share one number. */
const UNKNOWN_UID = -1

/** The thread waits for us meanwhile, so it is the one that asked. It is in none of our PID namespaces, or was killed: unknown. */
async function userOf(pid: number): Promise<number> {
  if (pid === 0) return UNKNOWN_UID
  return userIn(await readFile(`/proc/${pid}/status`, 'utf8').catch(() => ''))
}

/**
 * Of the four users of a thread (real, effective, saved, of files), the first that is not root: a user's set-user-ID program, and a
 * server of root's that looks for a user, are that user's.
 * @param status as in /proc/PID/status
 */
export function userIn(status: string): number {
  const uids = /^Uid:((?:\t\d+){4})$/m.exec(status)?.[1]?.trim().split('\t').map(Number)
  return uids === undefined ? UNKNOWN_UID : (uids.find((uid) => uid !== ROOT_UID) ?? ROOT_UID)
}
