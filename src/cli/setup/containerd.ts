// Which files `setup containerd` changes, and how; reads them, writes none.
import { join } from 'node:path'
import { parseVersion, type Version } from '../../engines/versions.ts'
import { Failure } from '../../errors.ts'
import type { Places } from '../../registry/places.ts'
import { MADE } from './changes.ts'
import {
  type ContainerdWishes,
  configVersion,
  mapsFuse,
  mapsLayers,
  REMAP_IDS,
  withoutSnapshotter,
  withSnapshotter,
} from './containerd-config.ts'
import type { SetupPlan } from './plan.ts'
import { BACKUP, BEHIND_AGENT, settingsChange, settingsUndo, unitChange } from './settings-change.ts'

export interface MachineWishes extends Omit<ContainerdWishes, 'capabilities'> {
  /** The kernel's release, as uname(2) says it. */
  kernel: string
}

export interface ContainerdSetup {
  places: Places
  wishes: MachineWishes
  /** What `containerd --version` printed; undefined: it is not here. */
  printed: string | undefined
}

export const RESTART = 'run systemctl daemon-reload && systemctl restart containerd'

/** @throws Failure missing: containerd is not here; usage, unsupported: its configuration is not edited; system */
export async function planContainerd({ places, wishes, printed }: ContainerdSetup): Promise<SetupPlan> {
  const version = parseVersion(printed ?? '')
  if (version === undefined) throw Failure.missing('containerd is not installed here', { fix: 'Install it first.' })
  const path = containerdConfigOf(places)
  const empty = `${MADE}\nversion = ${version.major < 2 ? 2 : 3}\n`
  const config = await settingsChange(path, empty, BACKUP, (text) => withSnapshotter(text, wishesOf(wishes, version)))
  const changes = [await unitChange(places, 'containerd', BEHIND_AGENT), config].filter(
    (each) => each.before !== each.after,
  )
  const notes = [`have the agent serve it: lazylayer serve --containerd ${wishes.socket}`]
  if (configVersion(config.after) === 2 && version.major >= 2)
    notes.push('its configuration is of version 2: containerd config migrate writes one of its own version')
  return { changes, notes: changes.length === 0 ? [] : [...notes, RESTART] }
}

/** @throws Failure as planContainerd, but for containerd */
export async function planContainerdUndo({ places, wishes, printed }: ContainerdSetup): Promise<SetupPlan> {
  const path = containerdConfigOf(places)
  const changes = [await unitChange(places, 'containerd', undefined)]
  const undone = await settingsUndo(path, BACKUP, (text, original) =>
    withoutSnapshotter(text, original, wishesOf(wishes, parseVersion(printed ?? ''))),
  )
  if (undone !== undefined) changes.push(undone)
  const needed = changes.filter((each) => each.before !== each.after || each.backup !== undefined)
  const remove = 'images that were pulled through lazylayer cannot be used without it: remove them, and pull them again'
  return { changes: needed, notes: needed.length === 0 ? [] : [remove, RESTART] }
}

/** @param version undefined: it is not known */
export function wishesOf({ kernel, ...wishes }: MachineWishes, version: Version | undefined): ContainerdWishes {
  const isMapping = version !== undefined && mapsLayers(version) && mapsFuse(kernel)
  return { ...wishes, capabilities: isMapping ? [REMAP_IDS] : [] }
}

/** @throws Failure unsupported: it is another user's */
export function containerdConfigOf({ etc, uid }: Places): string {
  if (uid === 0) return join(etc, 'containerd/config.toml')
  throw Failure.unsupported("containerd's configuration is root's", { fix: 'Run it as root.' })
}
