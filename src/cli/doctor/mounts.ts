// Checks of what is mounted: the agent of ROOT, whether engines see its mount, and what dead agents left.

import { basename } from 'node:path'
import { devicesFor, socketFor } from '../../agent/agent-places.ts'
import type { Status } from '../../agent/socket.ts'
import type { Files, SeenFile } from '../../engines/machine.ts'
import { describe } from '../../errors.ts'
import { isKernelMount } from '../../mount/kernel-mounts.ts'
import type { MountEntry } from '../../mount/mount-table.ts'
import { type DoctorCheck, ok, problem, warning } from './check.ts'

export interface MountNeeds {
  root: string
  /** The same without symlinks, as agents and the mount table have it. */
  real: string
  files: Files
  mounts(): Promise<MountEntry[]>
  /** The agents that answer, whatever they serve, and those that do not. */
  agents(): Promise<{ statuses: Status[]; silent: Silent[] }>
  /** Why engines do not see what is mounted at this point; undefined when they do, or nothing is. */
  unseen(point: string): Promise<string | undefined>
}

/** An agent that does not say how it is. */
export interface Silent {
  why: string
  /** What to do, in sentences, where more than the reason is known. */
  fix?: string | undefined
}

const FIND =
  'Find the process that has the socket (ss -xlp), end it by its number, and start it again; it detaches what it left.'

export const agent: DoctorCheck<MountNeeds> = {
  name: 'agent',
  async run({ root, real, agents }) {
    const { statuses, silent } = await agents()
    if (silent.length > 0) {
      const fixes = new Set(silent.map(({ fix }) => fix ?? FIND))
      return problem(silent.map(({ why }) => why).join('; '), [...fixes].join(' '))
    }
    const found = statuses.find((each) => each.root === real)
    if (found === undefined) return warning(`none serves ${root}`, `Run lazylayer serve ${root}.`)
    const why = found.why === undefined ? '' : ` (not higher: ${found.why})`
    // the kernel's EROFS has no direct I/O on files whose data are in other files
    const direct = found.mount === 'erofs' ? '; opening its files with O_DIRECT is EINVAL (--mount fuse has it)' : ''
    return ok(`${found.version} serves ${root} by ${found.mount}${why}, process ${found.pid}${direct}`)
  },
}

export const propagation: DoctorCheck<MountNeeds> = {
  name: 'propagation',
  async run({ root, real, mounts, unseen }) {
    if (!(await mounts()).some((each) => each.point === real)) return ok(`nothing is mounted on ${root}`)
    const why = await unseen(real).catch(describe)
    if (why === undefined) return ok(`engines in the mount namespace of process 1 see ${root}`)
    const fix = "Run the agent in the host's mount namespace: neither PrivateMounts= nor ProtectSystem= in its unit."
    return problem(why, fix)
  },
}

export const FUSE_TYPE = 'fuse.lazylayer'

export const deadMounts: DoctorCheck<MountNeeds> = {
  name: 'mounts',
  async run({ files, mounts }) {
    const { dead, hung, count } = await deadOf(await mounts(), files)
    if (dead.length > 0) {
      const fix = `Start the agent again, which detaches what it left, or run umount -l ${dead.toReversed().join(' ')}.`
      return problem(`dead: ${dead.join(', ')}`, fix)
    }
    if (hung.length > 0)
      return problem(
        `not answering: ${hung.join(', ')}`,
        'lazylayer status says which process it is; end that with SIGKILL, and start it again.',
      )
    return ok(`${count} of lazylayer, none dead`)
  },
}

/** Which mounts of ours nobody answers for, and which are slow to answer; and how many there are. */
export async function deadOf(
  table: readonly MountEntry[],
  files: Pick<Files, 'look'>,
): Promise<{ dead: string[]; hung: string[]; count: number }> {
  const served = table.filter((each) => each.type === FUSE_TYPE)
  const kinds = new Map<string, SeenFile['kind'] | undefined>()
  await Promise.all(served.map(async ({ point }) => kinds.set(point, (await files.look(point))?.kind)))
  const covers = table.filter(isKernelMount)
  const of = (kind: SeenFile['kind']) =>
    served.filter(({ point }) => kinds.get(point) === kind).map(({ point }) => point)
  // an EROFS mount itself looks alive whether or not somebody fills what is missing
  const filling = served.map(({ point }) => point).filter((point) => ![undefined, 'dead'].includes(kinds.get(point)))
  const left = covers.map(({ point }) => point).filter((point) => !filling.some((each) => fills(each, point)))
  return { dead: [...of('dead'), ...left], hung: of('hung'), count: served.length + covers.length }
}

/** Whether the FUSE mount at `point` has the devices of an EROFS mount: a store's is below it, an image's has them beside the socket. */
function fills(point: string, cover: string): boolean {
  return cover.startsWith(`${point}/`) || basename(point) === basename(devicesFor(socketFor('/', cover)))
}
