// The mount table of this process's namespace: what is mounted, without touching any of it.
import { readFile } from 'node:fs/promises'

/** The mount points, as the kernel names them: absolute, without symlinks. A mount that is covered by another is listed too. */
export async function mountPoints(): Promise<Set<string>> {
  // proc_pid_mountinfo(5): ID, parent, major:minor, root, mount point, …; blanks and backslashes are octal
  const table = await readFile('/proc/self/mountinfo', 'utf8')
  const points = table.split('\n').flatMap((line) => line.split(' ')[4] ?? [])
  return new Set(
    points.map((each) => each.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))),
  )
}
