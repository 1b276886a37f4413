// What a container's root is: an overlay as Podman makes it, with a writable layer over a read-only directory.
import { execFile } from 'node:child_process'
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/**
 * Runs `use` with the root of an overlay over the directories `lower`, the uppermost first, joined by colons; its writable layer lies in
 * `dir`, new each time.
 */
export async function withOverlay<T>(lower: string, dir: string, use: (root: string) => Promise<T>): Promise<T> {
  const [upper, work, merged] = ['upper', 'work', 'merged'].map((name) => join(dir, name)) as [string, string, string]
  for (const each of [upper, work, merged]) await mkdir(each, { recursive: true })
  await run('mount', ['-t', 'overlay', '-o', `lowerdir=${lower},upperdir=${upper},workdir=${work}`, 'overlay', merged])
  try {
    return await use(merged)
  } finally {
    await run('umount', [merged])
    await rm(dir, { recursive: true })
  }
}
