// Whether engines in the host's mount namespace see a mount of ours: one that was made in another namespace, or below a mount that is not
// shared with the host's, exists for nobody but us.
import { dirname } from 'node:path'
import { describe } from '../errors.ts'
import { type MountEntry, mountTable } from './mount-table.ts'

/** Of the host's first process, or, in a container with a process namespace of its own, of the container's. */
const HOST = '/proc/1/mountinfo'

export interface Visibility {
  seen: 'yes' | 'no' | 'unknown'
  /** Why it is not `yes`. */
  why?: string
}

/** Whether the mount on `point` is seen there at the same path, with which engines are configured. */
export async function visibility(point: string, host = HOST): Promise<Visibility> {
  const own = await mountTable()
  const mount = own.findLast((each) => each.point === point)
  if (mount === undefined) return { seen: 'unknown', why: `nothing is mounted on ${point} any more` }
  let theirs: MountEntry[]
  try {
    theirs = await mountTable(host)
  } catch (error) {
    return {
      seen: 'unknown',
      why: `whether engines outside this mount namespace see ${point} is unknown: ${describe(error)}`,
    }
  }
  if (theirs.some((each) => each.point === point && each.device === mount.device)) return { seen: 'yes' }
  const below = own.find((each) => each.id === mount.parent)
  const where = below?.point ?? dirname(point)
  const why = below?.shared === false ? `${where}, which it is on, is not shared` : `${where} is another mount there`
  return { seen: 'no', why: `engines in the mount namespace of process 1 do not see ${point}: ${why}` }
}

/** As a sentence: why it is not seen, or that this is not known; undefined when it is seen. */
export async function whyUnseen(point: string): Promise<string | undefined> {
  return (await visibility(point)).why
}
