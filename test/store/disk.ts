// What making room asks of the system, by way of programs: the real semantics without the addon.
import { spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { openSync, unlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Disk } from '../../src/store/disk.ts'

/** @param alone whether nobody else has a file open, as it is told */
export function disk(alone: () => boolean = () => true): Disk {
  return {
    unlock: (fd) => run('flock', ['-u', '3'], fd),
    async punchHoles(fd, ranges) {
      for (let i = 0; i < ranges.length; i += 2) {
        const [start = 0, end = 0] = ranges.subarray(i, i + 2)
        run('fallocate', ['--punch-hole', '-o', String(start), '-l', String(end - start), '/proc/self/fd/3'], fd)
      }
    },
    isOnlyOpener: alone,
    memoryFile() {
      const path = join(tmpdir(), randomUUID())
      const fd = openSync(path, 'wx+')
      unlinkSync(path)
      return fd
    },
  }
}

function run(program: string, args: string[], fd: number): void {
  const { status, error, stderr } = spawnSync(program, args, { stdio: ['ignore', 'ignore', 'pipe', fd] })
  if (error) throw error
  if (status !== 0) throw new Error(`${program}: ${stderr}`)
}

/** What a reader of a device tells that notes nothing. */
export const NO_READS = { take: () => new Float64Array(), begin: () => {}, end: () => {} }
