// Locks between processes: flock(2), which ends with its holder, so that nothing is left locked by the dead.
import { setTimeout as sleep } from 'node:timers/promises'
import { Failure } from '../errors.ts'

export interface Locks {
  /**
   * flock(2) with LOCK_NB on the open file behind `fd`; a lock already held is converted.
   * @returns whether it was got; where a conversion was refused the earlier lock may be lost
   */
  tryLock(fd: number, exclusive: boolean): boolean
}

/** What is done under a lock is a handful of small files; a process that takes longer is stuck. */
const LOCK_TIMEOUT_MS = 10_000
const LOCK_POLL_MS = 10

/** Waits for a lock. `what` names the file. @throws Failure timeout */
export async function lock(locks: Locks, fd: number, exclusive: boolean, what: string): Promise<void> {
  const deadline = performance.now() + LOCK_TIMEOUT_MS
  while (!locks.tryLock(fd, exclusive)) {
    if (performance.now() > deadline) {
      throw Failure.timeout(`${what} stayed locked for ${LOCK_TIMEOUT_MS / 1000} s`, {
        why: 'another process that uses this cache does not go on',
        fix: 'Find it with "lazylayer status" or fuser, and end it; or name another cache with --cache DIR.',
      })
    }
    await sleep(LOCK_POLL_MS)
  }
}
