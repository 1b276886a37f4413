// The snapshotter by the name that some clients of containerd know as lazy: beside the one of `setup containerd`, on the same socket.
import { join } from 'node:path'
import { valueAt } from '../../engines/toml-values.ts'
import { parseVersion } from '../../engines/versions.ts'
import { Failure } from '../../errors.ts'
import { readText } from '../../registry/file.ts'
import type { Places } from '../../registry/places.ts'
import { MADE } from './changes.ts'
import { type ContainerdSetup, containerdConfigOf, wishesOf } from './containerd.ts'
import { hasPlugin, withoutPlugin, withPlugin } from './containerd-config.ts'
import type { Change } from './plan.ts'
import { settingsChange, settingsUndo } from './settings-change.ts'

/** What BuildKit takes for lazy, and nerdctl up to 2.2. */
export const LAZY_NAME = 'stargz'

/** Clients that ask containerd by that name, where their settings say so. */
export type NamedClient = 'nerdctl' | 'buildkit'

/** @throws Failure missing: containerd is not here; as planContainerd */
export async function pluginChange(client: NamedClient, { places, wishes, printed }: ContainerdSetup): Promise<Change> {
  const version = parseVersion(printed ?? '')
  if (version === undefined) throw Failure.missing('containerd is not installed here', { fix: 'Install it first.' })
  const empty = `${MADE}\nversion = ${version.major < 2 ? 2 : 3}\n`
  return await settingsChange(containerdConfigOf(places), empty, copyOf(client), (text) =>
    withPlugin(text, LAZY_NAME, wishesOf(wishes, version)),
  )
}

/** Undefined: there is nothing to undo, or another client asks by that name. @throws Failure as pluginChange */
export async function pluginUndo(
  client: NamedClient,
  { places, wishes, printed }: ContainerdSetup,
): Promise<Change | undefined> {
  if (await isNamedBy(client === 'nerdctl' ? 'buildkit' : 'nerdctl', places)) return undefined
  const ours = wishesOf(wishes, parseVersion(printed ?? ''))
  const undone = await settingsUndo(containerdConfigOf(places), copyOf(client), (text, original) => {
    if (!hasPlugin(text, LAZY_NAME)) return text
    const isUntouched = original !== undefined && withPlugin(original, LAZY_NAME, ours) === text
    return isUntouched ? original : withoutPlugin(text, LAZY_NAME)
  })
  return undone?.before === undefined || !hasPlugin(undone.before, LAZY_NAME) ? undefined : undone
}

/** Where a client keeps its settings. */
export function settingsOf(client: NamedClient, { etc }: Pick<Places, 'etc'>): string {
  return join(etc, client === 'nerdctl' ? 'nerdctl/nerdctl.toml' : 'buildkit/buildkitd.toml')
}

async function isNamedBy(client: NamedClient, places: Places): Promise<boolean> {
  const text = (await readText(settingsOf(client, places))) ?? ''
  const place =
    client === 'nerdctl' ? { table: [], key: 'snapshotter' } : { table: ['worker', 'containerd'], key: 'snapshotter' }
  return valueAt(text, place) === LAZY_NAME
}

function copyOf(client: NamedClient): string {
  return `.before-lazylayer-${client}`
}
