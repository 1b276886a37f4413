// The mount table of this process's namespace: what is mounted, without touching any of it.
import { readFile } from 'node:fs/promises'

export interface MountEntry {
  /** As the kernel names it: absolute, without symlinks. */
  point: string
  type: string
  source: string
}

/** In the order in which they were mounted; of several on one point the last is seen. */
export async function mountTable(): Promise<MountEntry[]> {
  // proc_pid_mountinfo(5): ID parent major:minor root POINT options [optional…] - TYPE SOURCE options
  const table = await readFile('/proc/self/mountinfo', 'utf8')
  return table
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [before = '', behind = ''] = line.split(' - ')
      const [type = '', source = ''] = behind.split(' ')
      return { point: plain(before.split(' ')[4] ?? ''), type, source: plain(source) }
    })
}

/** Blanks and backslashes are octal. */
function plain(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))
}

export async function mountPoints(): Promise<Set<string>> {
  return new Set((await mountTable()).map((each) => each.point))
}
