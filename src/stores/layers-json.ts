// layers.json: the list of layers of a containers/storage root, as engines read it. Pure.
import { type Digest, digestOf } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Identity } from './chain.ts'
import { compressionOf } from './facts.ts'

/** A layer as its entry tells of it. */
export interface Listable {
  id: string
  parent: string | undefined
  identity: Identity
  descriptor: Descriptor
  /** As the image's config claims it. */
  diffId: Digest
  /** Whether all of it was read, and was found to have its DiffID. */
  proven: boolean
  /** Bytes of the tar. */
  size: number
  /** Digest of the tree that is served for it; undefined: it is quarantined. */
  tree: Digest | undefined
}

/** The same for all layers: no engine uses the time, and it must be the same after a restart. */
const CREATED = '1970-01-01T00:00:00Z'

/**
 * One layer's entry. One that is identified by its index has neither a DiffID, which the engine would believe, nor the digest of the
 * compressed layer, which without a DiffID breaks it.
 * @param hidden engines are not to find it by its index, its blob or its DiffID: it stands there for those that know its ID
 */
export function layerEntry({ id, parent, identity, descriptor, diffId, size }: Listable, hidden: boolean): string {
  const named = (digest: Digest) => (hidden ? unknown(digest) : digest)
  const own =
    identity.by === 'index'
      ? {
          'toc-digest': named(identity.digest),
          'diff-size': size,
          flags: { 'expected-layer-diffid': diffId },
        }
      : {
          'compressed-diff-digest': named(descriptor.digest),
          'compressed-size': descriptor.size,
          'diff-digest': named(identity.digest),
          'diff-size': size,
          compression: compressionOf(descriptor, identity.digest),
        }
  return JSON.stringify({ id, ...(parent === undefined ? {} : { parent }), created: CREATED, ...own })
}

/** A digest that no engine asks for. The entry needs one: engines do not push a layer that has neither a DiffID nor an index. */
function unknown(digest: Digest): Digest {
  return digestOf(new TextEncoder().encode(`not ${digest}`))
}

/** How the entries and files of two layers of one ID differ, a clause; undefined: they do not. */
export function shownOtherwise(listed: Listable, wanted: Listable): string | undefined {
  return (
    differs('its blob is', listed.descriptor.digest, wanted.descriptor.digest) ??
    differs('the size of its blob is', listed.descriptor.size, wanted.descriptor.size) ??
    differs('its compression is', compressionIn(listed), compressionIn(wanted)) ??
    differs('its tree is', listed.tree ?? 'none', wanted.tree ?? 'none')
  )
}

function compressionIn({ descriptor, identity }: Listable): number {
  return compressionOf(descriptor, identity.digest)
}

/**
 * How the claims of two images differ about a layer that has one ID in both, so that one entry cannot serve both; undefined: they do not.
 * Two blobs that are proven to be one tar may stand for each other. The size of a tar is no difference where the layer bears its DiffID,
 * because it may have become known exactly since.
 */
export function disagreement(listed: Listable, wanted: Listable): string | undefined {
  if (listed.proven && wanted.proven && listed.descriptor.digest !== wanted.descriptor.digest) return undefined
  return (
    shownOtherwise(listed, wanted) ??
    differs('its DiffID is', listed.diffId, wanted.diffId) ??
    (wanted.identity.by === 'index' ? differs('the size of its tar is', listed.size, wanted.size) : undefined)
  )
}

/** Whether two layers of one ID are proven to be one tar in two blobs, of which engines find only that which is listed. */
export function isOtherBlob(listed: Listable, wanted: Listable): boolean {
  const { identity, descriptor } = wanted
  if (!listed.proven || !wanted.proven || identity.by !== 'diffid') return false
  // engines find a blob that is the tar itself by its DiffID
  return descriptor.digest !== listed.descriptor.digest && descriptor.digest !== identity.digest
}

function differs(what: string, listed: string | number, wanted: string | number): string | undefined {
  return listed === wanted ? undefined : `${what} ${listed} there and ${wanted} here`
}

/** The whole file. Engines want each layer after its parent. */
export function layersJson(entries: Iterable<string>): Uint8Array {
  return new TextEncoder().encode(`[${[...entries].join(',\n')}]\n`)
}
