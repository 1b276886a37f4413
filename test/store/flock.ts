// flock(2) by way of flock(1), which locks the open file that it inherits: the real semantics without the addon.
import { spawnSync } from 'node:child_process'
import type { Locks } from '../../src/store/locks.ts'

export const flock: Locks = {
  tryLock(fd, exclusive) {
    const run = spawnSync('flock', ['-n', exclusive ? '-x' : '-s', '3'], { stdio: ['ignore', 'ignore', 'inherit', fd] })
    if (run.error) throw run.error
    return run.status === 0
  },
}
