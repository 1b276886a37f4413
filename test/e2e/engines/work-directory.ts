// The directory an end-to-end test works in. It is a mount of its own, shared: what a test or the agent mounts below it appears in
// every engine that runs over this directory, in a root of its own or not, and what is unmounted disappears there.
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { command, succeed } from './command.ts'

export interface WorkDirectory {
  readonly path: string
  /** Detaches every mount below, deepest first, and removes the directory. May be called twice. */
  remove(): Promise<void>
}

/** Root only. The path is short, because sockets lie below it (108 bytes). */
export async function makeWorkDirectory(): Promise<WorkDirectory> {
  const path = await mkdtemp(join(tmpdir(), 'lazy-'))
  await succeed('mount', ['--bind', path, path])
  // Private first: where / is shared, as under systemd, the new mount would be in that peer group.
  await succeed('mount', ['--make-private', path])
  await succeed('mount', ['--make-shared', path])
  return {
    path,
    async remove() {
      // Without a look at the mount point: its server may be dead, or hang.
      for (const mount of await mountsBelow(path)) await command('umount', ['--lazy', '--no-canonicalize', mount])
      await rm(path, { recursive: true, force: true })
    },
  }
}

/** Mount points at or below `path` in this process's namespace, or another's, the last mounted first. */
export async function mountsBelow(path: string, pid: number | 'self' = 'self'): Promise<string[]> {
  const table = await readFile(`/proc/${pid}/mountinfo`, 'utf8')
  const points = table.split('\n').flatMap((line) => line.split(' ')[4] ?? [])
  const unescaped = points.map((point) =>
    point.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))),
  )
  return unescaped.filter((point) => point === path || point.startsWith(`${path}/`)).reverse()
}
