// Which files `setup nerdctl` changes: nerdctl's settings name the snapshotter, by the name by which this nerdctl is lazy on this containerd.
import { parseVersion, type Version } from '../../engines/versions.ts'
import { Failure } from '../../errors.ts'
import { readText } from '../../registry/file.ts'
import { MADE } from './changes.ts'
import { type ContainerdSetup, containerdConfigOf, RESTART } from './containerd.ts'
import { hasPlugin, type PlacedValue, SNAPSHOTTER, withoutValues, withValues } from './containerd-config.ts'
import { LAZY_NAME, pluginChange, pluginUndo, settingsOf } from './named-plugin.ts'
import type { Change, SetupPlan } from './plan.ts'
import { BACKUP, settingsChange, settingsUndo } from './settings-change.ts'

export interface NerdctlSetup extends ContainerdSetup {
  /** What `nerdctl --version` printed; undefined: it is not here. */
  nerdctl: string | undefined
}

/** @throws Failure missing: one of them is not here; as planContainerd */
export async function planNerdctl(setup: NerdctlSetup): Promise<SetupPlan> {
  const { places, nerdctl, printed, wishes } = setup
  const [version, of] = [parseVersion(nerdctl ?? ''), parseVersion(printed ?? '')]
  if (version === undefined) throw Failure.missing('nerdctl is not installed here', { fix: 'Install it first.' })
  if (of === undefined) throw Failure.missing('containerd is not installed here', { fix: 'Install it first.' })
  const name = isAnyName(version, of) ? SNAPSHOTTER : LAZY_NAME
  const path = settingsOf('nerdctl', places)
  const settings = await settingsChange(path, `${MADE}\n`, BACKUP, (text) => withValues(text, [settingFor(name)]))
  const changes: Change[] = [...(name === LAZY_NAME ? [await pluginChange('nerdctl', setup)] : []), settings]
  const needed = changes.filter((each) => each.before !== each.after)
  const config = (await readText(containerdConfigOf(places))) ?? ''
  const notes: string[] = []
  if (name === SNAPSHOTTER && !hasPlugin(config, SNAPSHOTTER))
    notes.push('containerd knows no snapshotter lazylayer yet: lazylayer setup containerd')
  if (needed.length > 1) notes.push(`have the agent serve it: lazylayer serve --containerd ${wishes.socket}`, RESTART)
  return { changes: needed, notes }
}

/** @throws Failure as planNerdctl, but for missing */
export async function planNerdctlUndo(setup: NerdctlSetup): Promise<SetupPlan> {
  const path = settingsOf('nerdctl', setup.places)
  const ours = [settingFor(SNAPSHOTTER), settingFor(LAZY_NAME)]
  const settings = await settingsUndo(path, BACKUP, (text, original) => withoutValues(text, original, ours))
  const changes = [settings, await pluginUndo('nerdctl', setup)].flatMap((each) => each ?? [])
  const needed = changes.filter((each) => each.before !== each.after || each.backup !== undefined)
  return { changes: needed, notes: needed.length > 1 ? [RESTART] : [] }
}

/** Whether it is lazy by any name: with the transfer service that tells snapshotters what a layer is of. */
function isAnyName(nerdctl: Version, containerd: Version): boolean {
  const isSince = ({ major, minor }: Version, at: readonly [number, number]) =>
    major > at[0] || (major === at[0] && minor >= at[1])
  return isSince(nerdctl, [2, 3]) && isSince(containerd, [2, 1])
}

function settingFor(name: string): PlacedValue {
  return [{ table: [], key: 'snapshotter' }, name]
}
