// Checks of what is mounted: the agent of ROOT, whether engines see its mount, and what dead agents left.

import { basename } from 'node:path'
import { devicesFor, socketFor } from '../../agent/places.ts'
import type { Status } from '../../agent/socket.ts'
import type { Files, Seen } from '../../engines/machine.ts'
import { describe } from '../../errors.ts'
import { isKernelMount } from '../../mount/kernel-mounts.ts'
import type { MountEntry } from '../../mount/mount-table.ts'
import { type Check, ok, problem, warning } from './check.ts'

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

export const agent: Check<MountNeeds> = {
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

export const propagation: Check<MountNeeds> = {
  name: 'propagation',
  async run({ root, real, mounts, unseen }) {
    if (!(await mounts()).some((each) => each.point === real)) return ok(`nothing is mounted on ${root}`)
    const why = await unseen(real).catch(describe)
    if (why === undefined) return ok(`engines in the mount namespace of process 1 see ${root}`)
    const fix = "Run the agent in the host's mount namespace: neither PrivateMounts= nor ProtectSystem= in its unit."
    return problem(why, fix)
  },
}

const FUSE_TYPE = 'fuse.lazylayer'

export const deadMounts: Check<MountNeeds> = {
  name: 'mounts',
  async run({ files, mounts }) {
    const table = await mounts()
    const served = table.filter((each) => each.type === FUSE_TYPE)
    const kinds = new Map<string, Seen['kind'] | undefined>()
    await Promise.all(served.map(async ({ point }) => kinds.set(point, (await files.look(point))?.kind)))
    const covers = table.filter(isKernelMount)
    const of = (kind: Seen['kind']) => served.filter(({ point }) => kinds.get(point) === kind).map(({ point }) => point)
    // an EROFS mount itself looks alive whether or not somebody fills what is missing
    const filling = served.map(({ point }) => point).filter((point) => ![undefined, 'dead'].includes(kinds.get(point)))
    const left = covers.map(({ point }) => point).filter((point) => !filling.some((each) => fills(each, point)))
    const dead = [...of('dead'), ...left]
    if (dead.length > 0) {
      const fix = `Start the agent again, which detaches what it left, or run umount -l ${dead.toReversed().join(' ')}.`
      return problem(`dead: ${dead.join(', ')}`, fix)
    }
    const hung = of('hung')
    if (hung.length > 0)
      return problem(
        `not answering: ${hung.join(', ')}`,
        'lazylayer status says which process it is; end that with SIGKILL, and start it again.',
      )
    return ok(`${served.length + covers.length} of lazylayer, none dead`)
  },
}

/** Whether the FUSE mount at `point` has the devices of an EROFS mount: a store's is below it, an image's has them beside the socket. */
function fills(point: string, cover: string): boolean {
  return cover.startsWith(`${point}/`) || basename(point) === basename(devicesFor(socketFor('/', cover)))
}
