// The check of running containers: those that read layers of a mount that is gone have to be started anew, a line each.
import { readFile } from 'node:fs/promises'
import { containerAt, type NamedContainer } from '../../engines/containers.ts'
import type { Files } from '../../engines/machine.ts'
import { isKernelMount } from '../../mount/kernel-mounts.ts'
import type { MountEntry } from '../../mount/mount-table.ts'
import { isWithin } from '../../mount/overlays.ts'
import type { LayersRoot, Stranded } from '../../mount/stranded.ts'
import { type Finding, ok, problem, warning } from './check.ts'
import { deadOf, FUSE_TYPE } from './mounts.ts'

export const NAME = 'containers'

export interface ContainerNeeds {
  root: string
  /** The same without symlinks. */
  real: string
  files: Files
  mounts(): Promise<MountEntry[]>
  /** Overlays whose layers are of a mount that is gone. */
  stranded(roots: readonly LayersRoot[]): Promise<readonly Stranded[]>
  /** What a process is called; undefined: it has ended. */
  processName(pid: number): Promise<string | undefined>
}

/** Where the files that tell of it hang. */
export const UNTOLD = warning(
  'what containers read layers of does not answer',
  'End what hangs, as the lines above say, and run lazylayer doctor again.',
)

const WHAT = 'what it has not read yet fails with input/output errors, or with "Transport endpoint is not connected"'

/** One for each container; one that says so where there is none. */
export async function containerFindings(needs: ContainerNeeds): Promise<Finding[]> {
  const found = await needs.stranded(await rootsOf(needs))
  if (found.length === 0) return [ok('none reads layers of a mount that is gone')]
  return await Promise.all(found.map((each) => finding(each, needs)))
}

/** Where layers of ours are seen, or were: of mounts in mounts the outer one. */
export async function rootsOf({ real, files, mounts }: Pick<ContainerNeeds, 'real' | 'files' | 'mounts'>) {
  const table = await mounts()
  const { dead } = await deadOf(table, files)
  const mounted = new Set(
    table.filter((each) => each.type === FUSE_TYPE || isKernelMount(each)).map(({ point }) => point),
  )
  const all = [...new Set([real, ...mounted])]
  const outer = all.filter((each) => !all.some((other) => other !== each && isWithin(each, other)))
  return outer.map((dir): LayersRoot => ({ dir, isAlive: mounted.has(dir) && !dead.includes(dir) }))
}

async function finding({ root, points, pid }: Stranded, needs: ContainerNeeds): Promise<Finding> {
  const { files, processName } = needs
  const named = (await Promise.all(points.map((point) => containerAt(point, files)))).find((each) => each !== undefined)
  const program = pid === undefined ? undefined : await processName(pid)
  const process = program === undefined ? [] : [`process ${pid}, ${quoted(program)}`]
  // a container's own root directory says nothing
  const point = points.find((each) => each !== '/')
  const where = named === undefined && point !== undefined ? [`on ${quoted(point)}`] : []
  const who = named === undefined ? 'a container' : nameOf(named)
  const about = [...process, ...where]
  const whose = `${who}${about.length === 0 ? '' : ` (${about.join('; ')})`}`
  const served = root.isAlive
    ? ''
    : root.dir === needs.real
      ? `Start lazylayer serve ${needs.root}. `
      : `Mount ${root.dir} again. `
  return problem(`${whose} reads layers of a mount of ${root.dir} that is gone: ${WHAT}`, `${served}${restart(named)}`)
}

export async function processNameOf(pid: number): Promise<string | undefined> {
  const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => undefined) // it has ended
  return name?.replace(/\n$/, '')
}

const SHORT = 12

function nameOf({ engine, id, name, namespace }: NamedContainer): string {
  const of = { podman: 'Podman', crio: 'CRI-O', containerd: 'containerd', docker: 'Docker' }[engine]
  const where = namespace === undefined ? '' : ` in namespace ${namespace}`
  return `container ${name === undefined ? id : `${quoted(name)}, ${id.slice(0, SHORT)},`} of ${of}${where}`
}

/** IDs, not names: nobody else chose what is to be typed. */
function restart(named: NamedContainer | undefined): string {
  if (named === undefined) return 'Stop it, and start it again.'
  const { engine, id, namespace, isSandbox } = named
  const short = /^[0-9a-f]{64}$/.test(id) ? id.slice(0, SHORT) : id
  // Podman's restart keeps the overlay
  if (engine === 'podman' || engine === 'docker') return `Run ${engine} stop ${short}, and ${engine} start ${short}.`
  if (engine === 'crio' || namespace === 'k8s.io')
    return `Run crictl ${isSandbox ? 'stopp' : 'stop'} ${short}: kubelet starts another.`
  return `Stop it, and start it again (nerdctl --namespace ${namespace} restart ${short}, if nerdctl made it).`
}

/** Names that others chose, so that they are seen as names. */
function quoted(name: string): string {
  return /^[\w./-]+$/.test(name) ? name : JSON.stringify(name)
}
