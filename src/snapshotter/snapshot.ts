// A snapshot, as containerd has it: a layer, or what a container or a pull writes on top of one.
import type { Digest } from '../image/digest.ts'

/** `committed`: a layer, which others stand on. `active`: somebody writes to it. `view`: somebody reads it. */
export type Kind = 'view' | 'active' | 'committed'

/** On the wire: by these numbers. */
export const KINDS: readonly Kind[] = ['view', 'active', 'committed']

export type Labels = Readonly<Record<string, string>>

/** The layer of an image that a snapshot shows lazily. */
export interface LazyLayer {
  /** Its image: where it is pulled from, and which manifest. */
  reference: string
  manifest: Digest
  /** Its place among the manifest's layers, the base is 0. */
  place: number
  diffId: Digest
  blob: Digest
  /** Digest of the index by which the blob is read; absent: it was read whole. */
  index?: Digest
  /** Digest of the tree that is shown. */
  tree: Digest
  /** Whether it is one of several layers that show one tree together. */
  together: boolean
}

export interface Snapshot {
  /** `<namespace>/<number>/<what the client calls it>`, or a name of ours; never a file's name. */
  readonly key: string
  readonly kind: Kind
  /** '': none. */
  readonly parent: string
  readonly labels: Labels
  /** Milliseconds since 1970. */
  readonly createdAt: number
  readonly updatedAt: number
  /** Of its directory. */
  readonly id: number
  /** Absent: its files are in its directory. */
  readonly layer?: LazyLayer
}

/** On a request to make a layer: what it is to be found by. */
export const TARGET = 'containerd.io/snapshot.ref'
/** On that of a client that takes a layer as made when the mounts that it gets are read-only (containerd 2.4 and later). */
export const DIFF_ID = 'containerd.io/snapshot/diff-id'
/** On what is lazy: BuildKit looks for it. */
export const REMOTE = 'containerd.io/snapshot/remote'
/** The user namespace of a container: `0:100000:65536`, several comma separated. */
export const UID_MAPPING = 'containerd.io/snapshot/uidmapping'
export const GID_MAPPING = 'containerd.io/snapshot/gidmapping'

/** The namespace of containerd that a key is in. */
export function namespaceOf(key: string): string {
  const slash = key.indexOf('/')
  return slash < 0 ? '' : key.slice(0, slash)
}

/** What containerd's clients call a layer that they unpack: `extract-<time>-<random> <chain ID>`. */
const EXTRACTION = / (sha256:[0-9a-f]{64})$/

/** The chain ID of a layer that is unpacked by a client that does not ask for lazy ones. */
export function unpackedChain(key: string): string | undefined {
  return key.includes('/extract-') ? EXTRACTION.exec(key)?.[1] : undefined
}

/** Whether two show the same, read in the same way. */
export function isSameLayer(one: LazyLayer | undefined, other: LazyLayer): boolean {
  return one?.blob === other.blob && one.tree === other.tree
}

/** Of layers, whose labels an image can write. */
export function withoutMappings(labels: Labels): Labels {
  return withoutLabel(withoutLabel(labels, UID_MAPPING), GID_MAPPING)
}

export function withoutLabel(labels: Labels, label: string): Labels {
  const { [label]: _, ...others } = labels
  return others
}
