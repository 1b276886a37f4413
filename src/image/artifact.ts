// Artifacts that refer to an image (OCI image specification 1.1, "subject"): one document of a type of its own, and the lists in which
// registries name them (distribution specification, "Listing Referrers").
import { Failure } from '../errors.ts'
import { type Digest, digestOf, hex } from './digest.ts'
import { type Descriptor, OCI_INDEX, OCI_MANIFEST, parseManifest } from './manifest.ts'

const CREATED = 'org.opencontainers.image.created'

/** The configuration of an artifact that needs none. */
const EMPTY_TYPE = 'application/vnd.oci.empty.v1+json'
export const EMPTY_BYTES: Uint8Array = new TextEncoder().encode('{}')
const EMPTY = {
  mediaType: EMPTY_TYPE,
  digest: digestOf(EMPTY_BYTES),
  size: EMPTY_BYTES.length,
  data: base64(EMPTY_BYTES),
}

/** The manifest's own size is bounded too, where its document stands in it: 64 KiB in base64, and what is around it. */
export const ARTIFACT_MAX_BYTES = 128 << 10

/** What an artifact refers to. */
export interface Subject {
  mediaType: string
  digest: Digest
  size: number
}

/**
 * The manifest of an artifact that is one document, which stands in it as well, so that it is read in one go.
 * @param created of the document: milliseconds since 1970
 */
export function writeArtifact(type: string, document: Uint8Array, subject: Subject, created: number): Uint8Array {
  const layer = { mediaType: type, digest: digestOf(document), size: document.length, data: base64(document) }
  const annotations = { [CREATED]: new Date(created).toISOString() }
  const { mediaType, digest, size } = subject
  return json({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType: type,
    config: EMPTY,
    layers: [layer],
    subject: { mediaType, digest, size },
    annotations,
  })
}

/** A document that refers to an image. */
export interface Artifact {
  /** Where it is as a blob. */
  document: Descriptor
  /** Its bytes, where they stand in the manifest; checked. */
  bytes: Uint8Array | undefined
}

/** @throws Failure corrupt: of another type, of another subject, not one document; as parseManifest */
export function parseArtifact(bytes: Uint8Array, type: string, subject: Digest, what: string): Artifact {
  const manifest = parseManifest(bytes, what)
  const raw = rawOf(bytes)
  if (!('layers' in manifest) || raw.artifactType !== type) throw Failure.corrupt(`${what} is no ${type}`)
  if (fieldOf(raw.subject, 'digest') !== subject) throw Failure.corrupt(`${what} refers to another manifest`)
  const [document] = manifest.layers
  if (document?.mediaType !== type || manifest.layers.length > 1) throw Failure.corrupt(`${what} is not one ${type}`)
  const data = fieldOf(Array.isArray(raw.layers) ? raw.layers[0] : undefined, 'data')
  if (typeof data !== 'string') return { document, bytes: undefined }
  const inside = new Uint8Array(Buffer.from(data, 'base64'))
  if (inside.length !== document.size || digestOf(inside) !== document.digest) {
    throw Failure.corrupt(`${what}: its document differs from its digest`)
  }
  return { document, bytes: inside }
}

/** A referrer as a list names it. */
export interface Referrer extends Subject {
  /** As it says itself; 0: it does not. */
  created: number
  /** What stands in the list for its manifest's bytes, which nobody has checked. */
  data: Uint8Array | undefined
}

/** Those of this type, the newest first. @throws Failure corrupt, limit: it is no index */
export function parseReferrers(bytes: Uint8Array, type: string, what: string): Referrer[] {
  const index = parseManifest(bytes, what)
  if (!('manifests' in index)) throw Failure.corrupt(`${what} is no index`)
  const { manifests } = rawOf(bytes)
  const raw: unknown[] = Array.isArray(manifests) ? manifests : []
  return index.manifests
    .map(({ mediaType, digest, size, annotations }, i) => {
      const data = fieldOf(raw[i], 'data')
      return {
        mediaType,
        digest,
        size,
        type: fieldOf(raw[i], 'artifactType'),
        created: Date.parse(annotations[CREATED] ?? '') || 0,
        data: typeof data === 'string' ? new Uint8Array(Buffer.from(data, 'base64')) : undefined,
      }
    })
    .filter((each) => each.mediaType === OCI_MANIFEST && each.type === type)
    .sort((a, b) => b.created - a.created)
}

/** The tag under which registries that list no referrers have the list. */
export function referrersTag(subject: Digest): string {
  return `sha256-${hex(subject)}`
}

/** Of one type a list keeps so many. */
const OF_TYPE_MAX = 4

/**
 * Such a list, with one more artifact in front, whose manifest stands in it, so that both are read in one go; in place of those of the same
 * type. What others have in it stays as it is.
 * @param before as the registry has it; undefined: it has none
 * @throws Failure as parseReferrers
 */
export function addReferrer(before: Uint8Array | undefined, manifest: Uint8Array, what: string): Uint8Array {
  const { artifactType, annotations } = rawOf(manifest)
  const type = String(artifactType)
  const added = {
    mediaType: OCI_MANIFEST,
    digest: digestOf(manifest),
    size: manifest.length,
    artifactType,
    annotations,
    data: base64(manifest),
  }
  const kept = new Set(
    before === undefined
      ? []
      : parseReferrers(before, type, what)
          .slice(0, OF_TYPE_MAX - 1)
          .map(({ digest }) => digest as unknown),
  )
  const listed = before === undefined ? [] : rawOf(before).manifests
  const others = (Array.isArray(listed) ? listed : []).flatMap((each: unknown) => {
    const digest = fieldOf(each, 'digest')
    if (digest === added.digest) return []
    if (fieldOf(each, 'artifactType') !== type) return [each]
    return kept.has(digest) ? [{ ...(each as object), data: undefined }] : []
  })
  return json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [added, ...others] })
}

/** What parseManifest has read. */
function rawOf(bytes: Uint8Array): Record<string, unknown> {
  return JSON.parse(new TextDecoder().decode(bytes))
}

function fieldOf(of: unknown, key: string): unknown {
  return typeof of === 'object' && of !== null ? Reflect.get(of, key) : undefined
}

function json(value: object): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}
