// From a reference to an image: index, platform, manifest, config, with every digest checked.
import { Failure } from '../errors.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import {
  CONFIG_MAX_BYTES,
  type Config,
  checkIsImage,
  choosePlatform,
  type Descriptor,
  type ImageIndex,
  MANIFEST_MAX_BYTES,
  MANIFEST_TYPES,
  type Manifest,
  type Platform,
  parseConfig,
  parseManifest,
} from '../image/manifest.ts'
import { type Reference, referenceText } from '../image/reference.ts'

/** An image of one platform; every byte of it is covered by `digest`. */
export interface Image {
  reference: Reference
  /** Of the manifest. */
  digest: Digest
  manifestBytes: Uint8Array
  manifest: Manifest
  configBytes: Uint8Array
  config: Config
}

/** Who keeps the documents. Both check nothing but bounds. */
export interface Documents {
  /** What the reference itself names. `mediaType` is what the keeper calls it, if it does. */
  root(signal: AbortSignal | undefined): Promise<{ bytes: Uint8Array; mediaType: string | undefined }>
  manifest(descriptor: Descriptor, signal: AbortSignal | undefined): Promise<Uint8Array>
  config(descriptor: Descriptor, signal: AbortSignal | undefined): Promise<Uint8Array>
}

/** Indexes inside indexes; tools make one level. */
const NESTING_MAX = 3

/** A manifest without its config: of an image that is none, but a carrier of something else. */
export interface BareManifest {
  digest: Digest
  bytes: Uint8Array
  manifest: Manifest
}

/** @throws Failure corrupt, limit, missing (no such platform), unsupported; or what `documents` throws */
export async function resolveManifest(
  reference: Reference,
  documents: Documents,
  platform: Platform,
  { signal, kept }: Pick<ResolveOptions, 'signal' | 'kept'>,
): Promise<BareManifest> {
  const name = referenceText(reference)
  const root = await documents.root(signal)
  let bytes = root.bytes
  let digest = digestOf(bytes)
  if (reference.digest !== undefined) agree(`${name}: manifest`, reference.digest, digest)
  let document = parse(bytes, root.mediaType, `${name}: manifest`)
  for (let depth = 0; isIndex(document); depth++) {
    if (depth >= NESTING_MAX) throw Failure.limit(`${name}: indexes are nested more than ${NESTING_MAX} deep`)
    const chosen = choosePlatform(document, platform, name)
    const what = `${name}: manifest ${chosen.digest}`
    checkSize(chosen, MANIFEST_MAX_BYTES, what)
    bytes = (await kept?.(chosen.digest)) ?? (await documents.manifest(chosen, signal))
    digest = check(bytes, chosen, what)
    document = parse(bytes, chosen.mediaType, what)
  }
  return { digest, bytes, manifest: document }
}

export interface ResolveOptions {
  signal?: AbortSignal
  /** What is kept of manifests and configs, by digest, is not asked for again. It is checked like what comes. */
  kept?: (digest: Digest) => Promise<Uint8Array | undefined>
  /** Is called with the manifest of an image before its config is asked for: what it names may be asked for beside that. */
  onManifest?: (manifest: Manifest, digest: Digest) => void
}

/** @throws Failure as resolveManifest */
export async function resolveImage(
  reference: Reference,
  documents: Documents,
  platform: Platform,
  { onManifest, ...options }: ResolveOptions,
): Promise<Image> {
  const { digest, bytes, manifest } = await resolveManifest(reference, documents, platform, options)
  checkIsImage(manifest, referenceText(reference))
  onManifest?.(manifest, digest)
  const { config } = manifest
  const what = `${referenceText(reference)}: config ${config.digest}`
  checkSize(config, CONFIG_MAX_BYTES, what)
  const configBytes = (await options.kept?.(config.digest)) ?? (await documents.config(config, options.signal))
  check(configBytes, config, what)
  return {
    reference,
    digest,
    manifestBytes: bytes,
    manifest,
    configBytes,
    config: parseConfig(configBytes, manifest.layers.length, what),
  }
}

/** Tells the two results of `parseManifest` apart. */
export function isIndex(document: Manifest | ImageIndex): document is ImageIndex {
  return 'manifests' in document
}

/** A document is what its body says; whoever calls it something else is lying or confused (CVE-2021-41190). */
function parse(bytes: Uint8Array, called: string | undefined, what: string): Manifest | ImageIndex {
  const document = parseManifest(bytes, what)
  const type = called?.split(';')[0]?.trim()
  if (type !== undefined && MANIFEST_TYPES.includes(type) && type !== document.mediaType) {
    throw Failure.corrupt(`${what} is called ${type}, but is ${document.mediaType}`)
  }
  return document
}

/** @throws Failure limit: before anything is fetched */
function checkSize(descriptor: Descriptor, max: number, what: string): void {
  if (descriptor.size > max) throw Failure.limit(`${what} has ${descriptor.size} bytes, at most ${max} are read`)
}

function check(bytes: Uint8Array, descriptor: Descriptor, what: string): Digest {
  if (bytes.length !== descriptor.size) {
    throw Failure.corrupt(`${what}: want ${descriptor.size} bytes, got ${bytes.length}`)
  }
  const digest = digestOf(bytes)
  agree(what, descriptor.digest, digest)
  return digest
}

function agree(what: string, want: Digest, got: Digest): void {
  if (want !== got) throw Failure.corrupt(`${what}: want ${want}, got ${got}`)
}
