// Which files `setup containerd` changes, and how; reads them, writes none.
import { join } from 'node:path'
import { parseVersion, type Version } from '../../engines/versions.ts'
import { Failure } from '../../errors.ts'
import { readText } from '../../registry/file.ts'
import type { Places } from '../../registry/places.ts'
import { DROP_IN, MADE } from './changes.ts'
import {
  type ContainerdWishes,
  configVersion,
  mapsLayers,
  REMAP_IDS,
  withoutSnapshotter,
  withSnapshotter,
} from './containerd-config.ts'
import type { Change, SetupPlan } from './plan.ts'

export interface ContainerdSetup {
  places: Places
  wishes: Omit<ContainerdWishes, 'capabilities'>
  /** What `containerd --version` printed; undefined: it is not here. */
  printed: string | undefined
}

const BACKUP = '.before-lazylayer'

/** It must be there before containerd asks. */
const UNIT = `${MADE}
[Unit]
Wants=lazylayer.service
After=lazylayer.service
`

export const RESTART = 'run systemctl daemon-reload && systemctl restart containerd'

/** @throws Failure missing: containerd is not here; usage, unsupported: its configuration is not edited; system */
export async function planContainerd({ places, wishes, printed }: ContainerdSetup): Promise<SetupPlan> {
  const version = parseVersion(printed ?? '')
  if (version === undefined) throw Failure.missing('containerd is not installed here', { fix: 'Install it first.' })
  const path = configOf(places)
  const before = await readText(path)
  const base = before ?? `${MADE}\nversion = ${version.major < 2 ? 2 : 3}\n`
  const after = named(path, () => withSnapshotter(base, wishesOf(wishes, version)))
  const backup = `${path}${BACKUP}`
  const isFirst = before !== undefined && (await readText(backup)) === undefined
  const config: Change = { path, before, after, ...(isFirst ? { backup: { path: backup, keep: true } } : {}) }
  const changes = [await unitChange(places, UNIT), config].filter((each) => each.before !== each.after)
  const notes = [`have the agent serve it: lazylayer serve --containerd ${wishes.socket}`]
  if (configVersion(after) === 2 && version.major >= 2)
    notes.push('its configuration is of version 2: containerd config migrate writes one of its own version')
  return { changes, notes: changes.length === 0 ? [] : [...notes, RESTART] }
}

/** @throws Failure as planContainerd, but for containerd */
export async function planContainerdUndo({ places, wishes, printed }: ContainerdSetup): Promise<SetupPlan> {
  const path = configOf(places)
  const before = await readText(path)
  const backup = `${path}${BACKUP}`
  const original = await readText(backup)
  const changes = [await unitChange(places, undefined)]
  if (before !== undefined) {
    const left = named(path, () => withoutSnapshotter(before, original, wishesOf(wishes, parseVersion(printed ?? ''))))
    const isMade = original === undefined && before.startsWith(MADE)
    const after = isMade ? undefined : left
    changes.push({ path, before, after, ...(original === undefined ? {} : { backup: { path: backup, keep: false } }) })
  }
  const needed = changes.filter((each) => each.before !== each.after || each.backup !== undefined)
  const remove = 'images that were pulled through lazylayer cannot be used without it: remove them, and pull them again'
  return { changes: needed, notes: needed.length === 0 ? [] : [remove, RESTART] }
}

function wishesOf(wishes: ContainerdSetup['wishes'], version: Version | undefined): ContainerdWishes {
  return { ...wishes, capabilities: version !== undefined && mapsLayers(version) ? [REMAP_IDS] : [] }
}

function configOf({ etc, uid }: Places): string {
  if (uid === 0) return join(etc, 'containerd/config.toml')
  throw Failure.unsupported("containerd's configuration is root's", { fix: 'Run it as root.' })
}

async function unitChange({ etc }: Places, after: string | undefined): Promise<Change> {
  const path = join(etc, 'systemd/system/containerd.service.d', DROP_IN)
  return { path, before: await readText(path), after }
}

/** Has errors name the file. */
function named<T>(path: string, edit: () => T): T {
  try {
    return edit()
  } catch (cause) {
    if (!(cause instanceof Failure)) throw cause
    const fix = cause.fix === undefined ? {} : { fix: cause.fix }
    throw new Failure(cause.code, `${path} is not edited`, { cause, ...fix })
  }
}
