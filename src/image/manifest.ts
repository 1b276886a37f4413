// Image indexes, manifests and configs (OCI and Docker schema 2), parsed and checked.
import { Failure } from '../errors.ts'
import { type Digest, parseDigest } from './digest.ts'

export interface Descriptor {
  mediaType: string
  digest: Digest
  size: number
  annotations: Readonly<Record<string, string>>
}

export interface Platform {
  os: string
  architecture: string
  variant?: string
}

export interface Manifest {
  mediaType: string
  config: Descriptor
  layers: readonly Descriptor[]
}

export interface ImageIndex {
  mediaType: string
  manifests: readonly (Descriptor & { platform?: Platform })[]
}

/** What the config says that matters here: one DiffID a layer (claimed, not proven), and the platform. */
export interface Config {
  platform: Platform
  diffIds: readonly Digest[]
}

const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json'
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'

/** What a registry is asked for, in order of preference. */
export const MANIFEST_TYPES: readonly string[] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST]

/** The distribution specification lets registries refuse manifests over 4 MiB; none larger is read. */
export const MANIFEST_MAX_BYTES = 4 << 20
export const CONFIG_MAX_BYTES = 8 << 20
/** Kernels stack at most some hundred overlay layers; more is an attack, not an image. */
const LAYERS_MAX = 1024
const INDEX_ENTRIES_MAX = 4096

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
type JsonObject = { [key: string]: Json }

function parseJson(bytes: Uint8Array, what: string): JsonObject {
  let value: Json
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw Failure.corrupt(`${what} is no JSON`, { cause })
  }
  return object(value, what)
}

function object(value: Json | undefined, what: string): JsonObject {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw Failure.corrupt(`${what} is no JSON object`)
  }
  return value
}

function list(value: Json | undefined, what: string, max: number): Json[] {
  if (!Array.isArray(value)) throw Failure.corrupt(`${what} is no list`)
  if (value.length > max) throw Failure.limit(`${what} has ${value.length} members, at most ${max} are accepted`)
  return value
}

function strings(value: Json | undefined): Record<string, string> {
  const result: Record<string, string> = Object.create(null)
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return result
  for (const [key, text] of Object.entries(value)) if (typeof text === 'string') result[key] = text
  return result
}

function descriptor(value: Json | undefined, what: string): Descriptor {
  const raw = object(value, what)
  const size = raw.size
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw Failure.corrupt(`${what}: size ${JSON.stringify(size)} is no byte count`)
  }
  return {
    mediaType: typeof raw.mediaType === 'string' ? raw.mediaType : '',
    digest: parseDigest(raw.digest, what),
    size,
    annotations: strings(raw.annotations),
  }
}

function platform(value: Json | undefined): Platform | undefined {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return undefined
  if (typeof value.os !== 'string' || typeof value.architecture !== 'string') return undefined
  return typeof value.variant === 'string'
    ? { os: value.os, architecture: value.architecture, variant: value.variant }
    : { os: value.os, architecture: value.architecture }
}

/**
 * An index or a manifest. The body decides what it is and must not contradict its own `mediaType`, so that no document can be
 * read as both (CVE-2021-41190).
 * @throws Failure corrupt, limit, unsupported (schema 1)
 */
export function parseManifest(bytes: Uint8Array, what: string): Manifest | ImageIndex {
  if (bytes.length > MANIFEST_MAX_BYTES) throw Failure.limit(`${what} is larger than ${MANIFEST_MAX_BYTES} bytes`)
  const raw = parseJson(bytes, what)
  if (raw.schemaVersion !== 2) {
    throw Failure.unsupported(`${what} has schema version ${JSON.stringify(raw.schemaVersion)}`, {
      fix: 'Push the image again with a current tool.',
    })
  }
  const type = typeof raw.mediaType === 'string' ? raw.mediaType : undefined
  const isIndex = raw.manifests !== undefined
  if (isIndex === (raw.layers !== undefined)) throw Failure.corrupt(`${what} is neither an index nor a manifest`)
  const allowed = isIndex ? [OCI_INDEX, DOCKER_LIST] : [OCI_MANIFEST, DOCKER_MANIFEST]
  if (type !== undefined && !allowed.includes(type)) {
    throw Failure.corrupt(`${what} calls itself ${JSON.stringify(type)}, which its body is not`)
  }
  if (isIndex) {
    return {
      mediaType: type ?? OCI_INDEX,
      manifests: list(raw.manifests, `${what}: manifests`, INDEX_ENTRIES_MAX).map((each, i) => {
        const found = descriptor(each, `${what}: manifest ${i}`)
        const of = platform(object(each, what).platform)
        return of === undefined ? found : { ...found, platform: of }
      }),
    }
  }
  return {
    mediaType: type ?? OCI_MANIFEST,
    config: descriptor(raw.config, `${what}: config`),
    layers: list(raw.layers, `${what}: layers`, LAYERS_MAX).map((each, i) => descriptor(each, `${what}: layer ${i}`)),
  }
}

/** @throws Failure corrupt, limit: also when the number of DiffIDs differs from `layers` */
export function parseConfig(bytes: Uint8Array, layers: number, what: string): Config {
  const raw = parseJson(bytes, what)
  const ids = list(object(raw.rootfs, `${what}: rootfs`).diff_ids, `${what}: diff_ids`, LAYERS_MAX)
  if (ids.length !== layers) throw Failure.corrupt(`${what} has ${ids.length} DiffIDs for ${layers} layers`)
  const of = platform(raw)
  if (of === undefined) throw Failure.corrupt(`${what} names no platform`)
  return { platform: of, diffIds: ids.map((id, i) => parseDigest(id, `${what}: DiffID ${i}`)) }
}

/** `linux/arm64/v8`. @throws Failure usage */
export function parsePlatform(text: string): Platform {
  const [os, architecture, variant, ...rest] = text.split('/')
  if (!os || !architecture || variant === '' || rest.length > 0) {
    throw Failure.usage(`platform ${JSON.stringify(text)} is not OS/ARCHITECTURE[/VARIANT]`)
  }
  return variant === undefined ? { os, architecture } : { os, architecture, variant }
}

/** Node's name of a CPU -> Go's, which images use (GOARCH). */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', arm64: 'arm64', arm: 'arm' }

export function hostPlatform(): Platform {
  return { os: 'linux', architecture: ARCHITECTURES[process.arch] ?? process.arch }
}

/** The first manifest for `wanted`; an exact variant before one without. @throws Failure missing */
export function choosePlatform(index: ImageIndex, wanted: Platform, what: string): Descriptor {
  const same = index.manifests.filter(
    (each) => each.platform?.os === wanted.os && each.platform.architecture === wanted.architecture,
  )
  const exact = same.find((each) => each.platform?.variant === wanted.variant)
  const found = exact ?? (wanted.variant === undefined ? same[0] : same.find((each) => !each.platform?.variant))
  if (found) return found
  const offered = index.manifests.map((each) => each.platform && platformText(each.platform)).filter(Boolean)
  throw Failure.missing(`${what} has no image for ${platformText(wanted)}`, {
    why: `it offers ${offered.join(', ') || 'no platform at all'}`,
    fix: 'Name one of these with --platform.',
  })
}

export function platformText(of: Platform): string {
  return of.variant === undefined ? `${of.os}/${of.architecture}` : `${of.os}/${of.architecture}/${of.variant}`
}
