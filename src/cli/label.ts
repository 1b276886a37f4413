// --context LABEL: the SELinux label that everything in a mount bears, so that confined containers may read it.
import { readFile } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { Invocation } from './flags.ts'

/** USER:ROLE:TYPE:LEVEL, the last perhaps with categories; nothing that would end an option of mount(2). */
const LABEL = /^[\w.-]+:[\w.-]+:[\w.-]+(?::[\w.,:-]+)?$/

/** @throws Failure usage: no label, or a kernel without SELinux, which refuses the option by a number alone */
export async function wantedContext(
  values: Invocation['values'],
  filesystems = '/proc/filesystems',
): Promise<string | undefined> {
  const { context } = values
  if (typeof context !== 'string') return undefined
  if (!LABEL.test(context)) {
    throw Failure.usage(`--context ${JSON.stringify(context)} is no SELinux label`, {
      fix: 'Labels look like system_u:object_r:container_file_t:s0.',
    })
  }
  const known = await readFile(filesystems, 'utf8')
  if (!/\bselinuxfs$/m.test(known)) {
    throw Failure.usage('--context needs SELinux, which this kernel does not run', { fix: 'Leave it out.' })
  }
  return context
}
