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
import { parseVersion, type Version } from '../../engines/versions.ts'
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

/** Whether a containerd has layers mapped for containers in user namespaces. */
export function mapsLayers({ major }: Pick<Version, 'major'>): boolean {
  return major >= 2
}

/** Whether a kernel maps users of a FUSE mount, on which all layers stand: from Linux 6.12 on. Others refuse the container. */
export function mapsFuse(release: string): boolean {
  const { major, minor } = parseVersion(release) ?? { major: 0, minor: 0 }
  return major > 6 || (major === 6 && minor >= 12)
}

const UNPACK = ['plugins', 'io.containerd.transfer.v1.local', 'unpack_config']
const VERSIONS = [2, 3, 4]

/** A value of a configuration, and where it stands. */
export type PlacedValue = readonly [ValuePlace, TomlValue]

/** The version of a configuration. @throws Failure unsupported: it is none that is edited */
export function configVersion(text: string): number {
  const found = valueAt(text, { table: [], key: 'version' })
  if (typeof found === 'number' && VERSIONS.includes(found)) return found
  throw Failure.unsupported(`version ${found ?? 1} of containerd's configuration is not edited`, {
    fix: `Write one of version ${VERSIONS.join(', ')}: containerd config migrate does.`,
  })
}

/** With the snapshotter, and CRI's images in it. @throws Failure usage: no TOML; unsupported: written in a way that is not edited */
export function withSnapshotter(text: string, wishes: ContainerdWishes): string {
  return withPlugin(withValues(text, criValues(configVersion(text))), SNAPSHOTTER, wishes)
}

/** With the snapshotter by a name, which clients may ask for. @throws Failure as withSnapshotter */
export function withPlugin(text: string, name: string, wishes: ContainerdWishes): string {
  const version = configVersion(text)
  const edited = withValues(text, pluginValues(version, name, wishes))
  if (version === 2) return edited
  // the list replaces containerd's own, in which its usual snapshotter is
  const before = unpackersIn(edited)
  return unpackers(before, name).reduce(
    (all, snapshotter) => appendTable(all, UNPACK, { platform: wishes.platform, snapshotter, differ: 'walking' }),
    edited,
  )
}

/** @param original the text before; undefined: it is not known, and what else was set goes to its default */
export function withoutSnapshotter(text: string, original: string | undefined, wishes: ContainerdWishes): string {
  if (original !== undefined && withSnapshotter(original, wishes) === text) return original
  return withoutValues(withoutPlugin(text, SNAPSHOTTER), original, criValues(configVersion(text)))
}

/** Without the snapshotter of that name, and what pulls unpack with it. */
export function withoutPlugin(text: string, name: string): string {
  const isOurs = (of: unknown) =>
    typeof of === 'object' && of !== null && 'snapshotter' in of && of.snapshotter === name
  return withoutTables(
    withoutTables(text, [PLUGINS, name], () => true),
    UNPACK,
    isOurs,
  )
}

/** Whether there is a snapshotter of that name. */
export function hasPlugin(text: string, name: string): boolean {
  return valueAt(text, { table: [PLUGINS], key: name }) !== undefined
}

/** @throws Failure as setValue */
export function withValues(text: string, values: readonly PlacedValue[]): string {
  return values.reduce((all, [place, value]) => setValue(all, place, value), text)
}

/** Each as it was in the original, or not there; those that somebody else has set since stay. */
export function withoutValues(text: string, original: string | undefined, values: readonly PlacedValue[]): string {
  return values.reduce((all, [place, value]) => {
    if (valueAt(all, place) !== value) return all // gone, or somebody else's by now
    const before = original === undefined ? undefined : valueAt(original, place)
    return typeof before === 'string' || typeof before === 'boolean'
      ? setValue(all, place, before)
      : unsetValue(all, place)
  }, text)
}

const PLUGINS = 'proxy_plugins'

function pluginValues(version: number, name: string, { socket, root, capabilities }: ContainerdWishes): PlacedValue[] {
  const table = [PLUGINS, name]
  const able: PlacedValue[] = capabilities.length > 0 ? [[{ table, key: 'capabilities' }, capabilities]] : []
  const exports = [...table, 'exports']
  const annotations: PlacedValue[] =
    version === 2 ? [] : [[{ table: exports, key: 'enable_remote_snapshot_annotations' }, 'true']]
  return [
    [{ table, key: 'type' }, 'snapshot'],
    [{ table, key: 'address' }, socket],
    ...able,
    [{ table: exports, key: 'root' }, root],
    ...annotations,
  ]
}

function criValues(version: number): PlacedValue[] {
  if (version !== 2) return [[{ table: ['plugins', 'io.containerd.cri.v1.images'], key: 'snapshotter' }, SNAPSHOTTER]]
  const table = ['plugins', 'io.containerd.grpc.v1.cri', 'containerd']
  return [
    [{ table, key: 'disable_snapshot_annotations' }, false],
    [{ table, key: 'snapshotter' }, SNAPSHOTTER],
  ]
}

/** What is missing in the list that says with which snapshotters pulls unpack. */
function unpackers(before: readonly string[], name: string): string[] {
  return (before.length === 0 ? ['overlayfs', name] : [name]).filter((each) => !before.includes(each))
}

function unpackersIn(text: string): string[] {
  const found = valueAt(text, { table: UNPACK.slice(0, -1), key: UNPACK.at(-1) as string }) // it has several names
  if (!Array.isArray(found)) return []
  return found.flatMap((each) => (typeof each?.snapshotter === 'string' ? [each.snapshotter] : []))
}
