// The mount table of a namespace: what is mounted, without touching any of it.
import { readFile } from 'node:fs/promises'

export interface MountEntry {
  id: string
  /** Of the mount that this one is on. */
  parent: string
  /** `major:minor` of the filesystem. */
  device: string
  /** As the kernel names it: absolute, without symlinks. */
  point: string
  /** Mounts on it appear in the namespaces that share it. */
  shared: boolean
  /** What is unmounted where it is a copy of stays here. */
  kept: boolean
  type: string
  source: string
  /** Of the filesystem: `key=value` or `key`. */
  options: readonly string[]
}

/** Of this process. */
export const OWN_TABLE = '/proc/self/mountinfo'

/**
 * In the order in which they were mounted; of several on one point the last is seen.
 * @param file of another process, to see what it sees
 */
export async function mountTable(file = OWN_TABLE): Promise<MountEntry[]> {
  // proc_pid_mountinfo(5): ID parent major:minor root POINT options [optional…] - TYPE SOURCE options
  const table = await readFile(file, 'utf8')
  return table
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [before = '', behind = ''] = line.split(' - ')
      const [id = '', parent = '', device = '', , point = '', , ...optional] = before.split(' ')
      const [type = '', source = '', options = ''] = behind.split(' ')
      return {
        id,
        parent,
        device,
        point: plain(point),
        shared: optional.some((each) => each.startsWith('shared:')),
        kept: !optional.some((each) => /^(shared|master):/.test(each)),
        type,
        source: plain(source),
        options: options.split(',').map(plain), // a comma of a value is written in octal
      }
    })
}

/** Blanks and backslashes are octal. */
function plain(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))
}

export async function mountPoints(): Promise<Set<string>> {
  return new Set((await mountTable()).map((each) => each.point))
}
