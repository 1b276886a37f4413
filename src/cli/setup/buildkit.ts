// Which files `setup buildkit` changes: the settings of buildkitd's workers. Its OCI worker asks the agent itself, and keeps manifests and
// configurations in a content store of its own, which the agent reads through buildkitd's socket; its containerd worker asks containerd.
import { valueAt } from '../../engines/toml-values.ts'
import { readText } from '../../registry/file.ts'
import { MADE } from './changes.ts'
import type { ContainerdSetup } from './containerd.ts'
import { RESTART } from './containerd.ts'
import { type PlacedValue, withoutValues, withValues } from './containerd-config.ts'
import { LAZY_NAME, pluginChange, pluginUndo, settingsOf } from './named-plugin.ts'
import type { Change, SetupPlan } from './plan.ts'
import { BACKUP, BEHIND_AGENT, settingsChange, settingsUndo, unitChange } from './settings-change.ts'

export interface BuildKitSetup extends ContainerdSetup {
  /** Where the agent listens for the OCI worker alone: each client has a socket. */
  socket: string
}

/** buildkitd's, unless its settings say otherwise. */
const ADDRESS = '/run/buildkit/buildkitd.sock'
const RESTART_BUILDKIT = 'run systemctl daemon-reload && systemctl restart buildkit'

/** @throws Failure missing: containerd is to be asked, and is not here; as planContainerd */
export async function planBuildKit(setup: BuildKitSetup): Promise<SetupPlan> {
  const { places, socket, wishes } = setup
  const path = settingsOf('buildkit', places)
  const workers = workersIn((await readText(path)) ?? '')
  const settings = await settingsChange(path, `${MADE}\n`, BACKUP, (text) =>
    withValues(text, [...(workers.oci ? ociValues(socket) : []), ...(workers.containerd ? CONTAINERD_VALUES : [])]),
  )
  const plugin = workers.containerd ? [await pluginChange('buildkit', setup)] : []
  const all: Change[] = [await unitChange(places, 'buildkit', BEHIND_AGENT), ...plugin, settings]
  const changes = all.filter((each) => each.before !== each.after)
  const served = [
    ...(workers.containerd ? [`--containerd ${wishes.socket}`] : []),
    ...(workers.oci ? [`--containerd ${LAZY_NAME}=${socket} --containerd-address ${ADDRESS}`] : []),
  ]
  const each = workers.containerd && workers.oci ? ' (a --containerd-address each, in the order of --containerd)' : ''
  const notes = [`have the agent serve it: lazylayer serve ${served.join(' ')}${each}`]
  if (plugin.some((one) => one.before !== one.after)) notes.push(RESTART)
  return { changes, notes: changes.length === 0 ? [] : [...notes, RESTART_BUILDKIT] }
}

/** @throws Failure as planBuildKit, but for missing */
export async function planBuildKitUndo(setup: BuildKitSetup): Promise<SetupPlan> {
  const { places, socket } = setup
  const settings = await settingsUndo(settingsOf('buildkit', places), BACKUP, (text, original) => {
    const left = withoutValues(text, original, [...ociValues(socket), ...CONTAINERD_VALUES])
    return left
  })
  const plugin = await pluginUndo('buildkit', setup)
  const changes = [await unitChange(places, 'buildkit', undefined), settings, plugin].flatMap((each) => each ?? [])
  const needed = changes.filter((each) => each.before !== each.after || each.backup !== undefined)
  const notes = [...(plugin === undefined ? [] : [RESTART]), RESTART_BUILDKIT]
  return { changes: needed, notes: needed.length === 0 ? [] : notes }
}

/** Which of them run: without a word the OCI worker does, and containerd's where there is one, unless the other is said to be. */
function workersIn(text: string): { oci: boolean; containerd: boolean } {
  const enabled = (worker: string) => valueAt(text, { table: ['worker', worker], key: 'enabled' })
  return { oci: enabled('oci') !== false, containerd: enabled('containerd') === true }
}

function ociValues(socket: string): PlacedValue[] {
  const table = ['worker', 'oci']
  return [
    [{ table, key: 'snapshotter' }, LAZY_NAME],
    [{ table, key: 'proxySnapshotterPath' }, socket],
  ]
}

const CONTAINERD_VALUES: readonly PlacedValue[] = [[{ table: ['worker', 'containerd'], key: 'snapshotter' }, LAZY_NAME]]
