// What `setup containerd` writes into containerd's config.toml, and takes out again: pure, from the texts that are there.
import {
  appendTable,
  setValue,
  type TomlValue,
  unsetValue,
  type ValuePlace,
  valueAt,
  withoutTables,
} from '../../engines/toml-values.ts'
import type { Version } from '../../engines/versions.ts'
import { Failure } from '../../errors.ts'

export interface ContainerdWishes {
  /** Of the snapshotter, where the agent listens. */
  socket: string
  /** On the filesystem of the cache, which kubelet is to watch. */
  root: string
  /** As containerd has it: `linux/amd64`. */
  platform: string
  /** Of the snapshotter, as far as this containerd makes good use of them. */
  capabilities: readonly string[]
}

/** What containerd calls us. */
export const SNAPSHOTTER = 'lazylayer'

/** Has containerd map a container's layers to its user namespace, not copy them. */
export const REMAP_IDS = 'remap-ids'

/** Whether a containerd maps layers with all mounts in them: 2.1 and 2.2 leave those out, and containers find nothing there. */
export function mapsLayers({ major, minor }: Pick<Version, 'major' | 'minor'>): boolean {
  return major > 2 || (major === 2 && minor >= 3)
}

const PLUGIN = ['proxy_plugins', SNAPSHOTTER]
const UNPACK = ['plugins', 'io.containerd.transfer.v1.local', 'unpack_config']
const VERSIONS = [2, 3, 4]

/** The version of a configuration. @throws Failure unsupported: it is none that is edited */
export function configVersion(text: string): number {
  const found = valueAt(text, { table: [], key: 'version' })
  if (typeof found === 'number' && VERSIONS.includes(found)) return found
  throw Failure.unsupported(`version ${found ?? 1} of containerd's configuration is not edited`, {
    fix: `Write one of version ${VERSIONS.join(', ')}: containerd config migrate does.`,
  })
}

/** @throws Failure usage: no TOML; unsupported: written in a way that is not edited */
export function withSnapshotter(text: string, wishes: ContainerdWishes): string {
  const version = configVersion(text)
  let edited = text
  for (const [place, value] of valuesFor(version, wishes)) edited = setValue(edited, place, value)
  if (version === 2) return edited
  // the list replaces containerd's own, in which its usual snapshotter is
  const before = unpackersIn(edited)
  const wanted = before.length === 0 ? ['overlayfs', SNAPSHOTTER] : [SNAPSHOTTER]
  for (const snapshotter of wanted)
    if (!before.includes(snapshotter))
      edited = appendTable(edited, UNPACK, { platform: wishes.platform, snapshotter, differ: 'walking' })
  return edited
}

/** @param original the text before; undefined: it is not known, and what else was set goes to its default */
export function withoutSnapshotter(text: string, original: string | undefined, wishes: ContainerdWishes): string {
  if (original !== undefined && withSnapshotter(original, wishes) === text) return original
  const isOurs = (of: unknown) =>
    typeof of === 'object' && of !== null && 'snapshotter' in of && of.snapshotter === SNAPSHOTTER
  let edited = withoutTables(text, PLUGIN, () => true)
  edited = withoutTables(edited, UNPACK, isOurs)
  for (const [place, value] of valuesFor(configVersion(text), wishes)) {
    if (place.table[0] === PLUGIN[0] || valueAt(edited, place) !== value) continue // gone, or somebody else's by now
    const before = original === undefined ? undefined : valueAt(original, place)
    edited =
      typeof before === 'string' || typeof before === 'boolean'
        ? setValue(edited, place, before)
        : unsetValue(edited, place)
  }
  return edited
}

function valuesFor(version: number, { socket, root, capabilities }: ContainerdWishes): [ValuePlace, TomlValue][] {
  const cri =
    version === 2 ? ['plugins', 'io.containerd.grpc.v1.cri', 'containerd'] : ['plugins', 'io.containerd.cri.v1.images']
  const annotations: [ValuePlace, TomlValue] =
    version === 2
      ? [{ table: cri, key: 'disable_snapshot_annotations' }, false]
      : [{ table: [...PLUGIN, 'exports'], key: 'enable_remote_snapshot_annotations' }, 'true']
  return [
    [{ table: PLUGIN, key: 'type' }, 'snapshot'],
    [{ table: PLUGIN, key: 'address' }, socket],
    ...(capabilities.length > 0
      ? [[{ table: PLUGIN, key: 'capabilities' }, capabilities] satisfies [ValuePlace, TomlValue]]
      : []),
    [{ table: [...PLUGIN, 'exports'], key: 'root' }, root],
    annotations,
    [{ table: cri, key: 'snapshotter' }, SNAPSHOTTER],
  ]
}

/** Of the list that says with which snapshotters pulls unpack. */
function unpackersIn(text: string): string[] {
  const found = valueAt(text, { table: UNPACK.slice(0, -1), key: UNPACK.at(-1) as string }) // it has several names
  if (!Array.isArray(found)) return []
  return found.flatMap((each) => (typeof each?.snapshotter === 'string' ? [each.snapshotter] : []))
}
