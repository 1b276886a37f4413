// Image indexes, manifests and configs (OCI and Docker schema 2), parsed and checked. What is written so that engines (in Go) read
// something else is refused, and of an index that manifest is chosen which they choose.
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
  /** Empty where it names none, as some tools leave it out. */
  platform: Platform
  diffIds: readonly Digest[]
}

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json'
/** Engines read no annotations of its layers. */
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'

/** What a registry is asked for, in order of preference. */
export const MANIFEST_TYPES: readonly string[] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST]

const INDEX_TYPES: readonly string[] = [OCI_INDEX, DOCKER_LIST]

/** The distribution specification lets registries refuse manifests over 4 MiB; none larger is read. */
export const MANIFEST_MAX_BYTES = 4 << 20
export const CONFIG_MAX_BYTES = 8 << 20
/** Kernels stack at most some hundred overlay layers; more is an attack, not an image. */
const LAYERS_MAX = 1024
const INDEX_ENTRIES_MAX = 4096
/** A config nests some five deep; messages show what they refuse, and JSON.stringify ends with the stack. */
const DEPTH_MAX = 100

/** Go reads a key that it knows whatever its case, and with ſ for s and K (Kelvin) for k: as the `iu` of a RegExp. */
interface Keys {
  exact: ReadonlySet<string>
  folded: RegExp
}

function keys(text: string): Keys {
  const all = text.split(' ')
  return { exact: new Set(all), folded: new RegExp(`^(?:${all.join('|')})$`, 'iu') }
}

/** Of indexes and manifests, their descriptors and platforms. */
const MANIFEST_KEYS = keys(
  'schemaVersion mediaType artifactType config layers manifests subject fsLayers history digest size urls annotations data platform os architecture variant',
)
/** Of configs and their rootfs: those that are read here. */
const CONFIG_KEYS = keys('os architecture variant rootfs type diff_ids')

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
type JsonObject = { [key: string]: Json }

function parseJson(bytes: Uint8Array, what: string, known: Keys): JsonObject {
  let text: string
  let value: Json
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    value = JSON.parse(text)
  } catch (cause) {
    throw Failure.corrupt(`${what} is no JSON`, { cause })
  }
  checkJson(text, what)
  return object(value, what, known)
}

/**
 * Of two members with one key JSON.parse keeps the last; Go joins them where they are objects or lists, as annotations are.
 * @param text JSON.parse has read it
 */
function checkJson(text: string, what: string): void {
  const open: (Set<string> | undefined)[] = []
  let start = 0 // of the last string, its quotes included
  let end = 0
  for (let at = 0; at < text.length; at++) {
    const char = text[at]
    if (char === '"') {
      start = at++
      while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1
      end = at + 1
    } else if (char === ':') {
      const key = text.slice(start, end)
      const before = open.pop() ?? new Set()
      const plain: string = key.includes('\\') ? JSON.parse(key) : key.slice(1, -1)
      if (before.has(plain)) throw Failure.corrupt(`${what} has the key ${key} twice in one object`)
      open.push(before.add(plain))
    } else if (char === '{' || char === '[') {
      if (open.push(undefined) > DEPTH_MAX) throw Failure.limit(`${what} is nested more than ${DEPTH_MAX} deep`)
    } else if (char === '}' || char === ']') {
      open.pop()
    }
  }
}

function object(value: Json | undefined, what: string, known: Keys): JsonObject {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw Failure.corrupt(`${what} is no JSON object`)
  }
  const other = Object.keys(value).find((key) => known.folded.test(key) && !known.exact.has(key))
  if (other !== undefined) {
    throw Failure.corrupt(`${what} has the key ${JSON.stringify(other)}, which engines read whatever its case`)
  }
  return value
}

/** A text, empty where there is none: as engines read it. */
function word(of: JsonObject, key: string, what: string): string {
  const value = of[key] ?? ''
  if (typeof value !== 'string') throw Failure.corrupt(`${what}: ${key} is no text`)
  return value
}

/** Engines read null, which Go writes for a list of nothing, and none at all as an empty one. */
function list(value: Json | undefined, what: string, max: number): Json[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw Failure.corrupt(`${what} is no list`)
  if (value.length > max) throw Failure.limit(`${what} has ${value.length} members, at most ${max} are accepted`)
  return value
}

function strings(value: Json | undefined): Record<string, string> {
  const result: Record<string, string> = Object.create(null)
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return result
  for (const [key, text] of Object.entries(value)) {
    if (text === null || typeof text === 'string') result[key] = text ?? ''
  }
  return result
}

function descriptor(value: Json | undefined, what: string): Descriptor {
  const raw = object(value, what, MANIFEST_KEYS)
  const size = raw.size
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw Failure.corrupt(`${what}: size ${JSON.stringify(size)} is no byte count`)
  }
  return {
    mediaType: word(raw, 'mediaType', what),
    digest: parseDigest(raw.digest, what),
    size,
    annotations: strings(raw.annotations),
  }
}

function platform(raw: JsonObject, what: string): Platform {
  const of = { os: word(raw, 'os', what), architecture: word(raw, 'architecture', what) }
  const variant = word(raw, 'variant', what)
  return variant === '' ? of : { ...of, variant }
}

/**
 * An index or a manifest. The body decides what it is and must not contradict its own `mediaType`, so that no document can be
 * read as both (CVE-2021-41190).
 * @throws Failure corrupt, limit, unsupported (schema 1)
 */
export function parseManifest(bytes: Uint8Array, what: string): Manifest | ImageIndex {
  if (bytes.length > MANIFEST_MAX_BYTES) throw Failure.limit(`${what} is larger than ${MANIFEST_MAX_BYTES} bytes`)
  const raw = parseJson(bytes, what, MANIFEST_KEYS)
  // engines go by the media type
  if ((raw.schemaVersion ?? 2) !== 2) {
    throw Failure.unsupported(`${what} has schema version ${JSON.stringify(raw.schemaVersion)}`, {
      fix: 'Push the image again with a current tool.',
    })
  }
  const type = word(raw, 'mediaType', what) || undefined
  const has = (key: string) => (raw[key] ?? null) !== null
  const isIndex = type === undefined ? has('manifests') : INDEX_TYPES.includes(type)
  if (type === undefined && !isIndex && !has('layers') && !has('config')) {
    throw Failure.corrupt(`${what} is neither an index nor a manifest`)
  }
  if (type !== undefined && !MANIFEST_TYPES.includes(type)) {
    throw Failure.corrupt(`${what} calls itself ${JSON.stringify(type)}, which is neither an index nor a manifest`)
  }
  const foreign = ['fsLayers', 'history', ...(isIndex ? ['config', 'layers'] : ['manifests'])].find(has)
  if (foreign !== undefined) {
    throw Failure.corrupt(`${what} is ambiguous: ${isIndex ? 'an index' : 'a manifest'} that has ${foreign}`)
  }
  if (isIndex) {
    return {
      mediaType: type ?? OCI_INDEX,
      manifests: list(raw.manifests, `${what}: manifests`, INDEX_ENTRIES_MAX).map((each, i) => {
        const which = `${what}: manifest ${i}`
        const found = descriptor(each, which)
        const of = object(each, which, MANIFEST_KEYS).platform ?? null
        if (of === null) return found
        return { ...found, platform: platform(object(of, `${which}: platform`, MANIFEST_KEYS), which) }
      }),
    }
  }
  return {
    mediaType: type ?? OCI_MANIFEST,
    config: descriptor(raw.config, `${what}: config`),
    layers: list(raw.layers, `${what}: layers`, LAYERS_MAX).map((each, i) => descriptor(each, `${what}: layer ${i}`)),
  }
}

/** Of image configurations; Docker's own manifests have had others, too, and no engine looks. */
export const CONFIG_TYPES: readonly string[] = [
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
]

/** Some tools have a type of their own, so that engines pass by images that these could not run; what is in them is the same. */
const FOREIGN_CONFIG_TYPE = /^application\/vnd\.[a-z0-9.-]+\.image\.config\.v1\+json$/

/** A manifest may be that of any artifact: a Helm chart, a signature, a model. @throws Failure unsupported: it is one */
export function checkIsImage({ mediaType, config }: Manifest, what: string): void {
  if (mediaType !== OCI_MANIFEST || config.mediaType === '' || CONFIG_TYPES.includes(config.mediaType)) return
  if (FOREIGN_CONFIG_TYPE.test(config.mediaType)) return
  throw Failure.unsupported(`${what} is no container image`, {
    why: `it is an artifact: its configuration is of type ${config.mediaType}`,
    fix: 'Name a container image.',
  })
}

/** @throws Failure corrupt, limit: also when the number of DiffIDs differs from `layers` */
export function parseConfig(bytes: Uint8Array, layers: number, what: string): Config {
  const raw = parseJson(bytes, what, CONFIG_KEYS)
  const rootfs = object(raw.rootfs ?? {}, `${what}: rootfs`, CONFIG_KEYS)
  const ids = list(rootfs.diff_ids, `${what}: diff_ids`, LAYERS_MAX)
  if (ids.length !== layers) throw Failure.corrupt(`${what} has ${ids.length} DiffIDs for ${layers} layers`)
  return { platform: platform(raw, what), diffIds: ids.map((id, i) => parseDigest(id, `${what}: DiffID ${i}`)) }
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

/** What engines look for on this machine. Linux calls each arm64 one of version 8. */
export function hostPlatform(cpu: string = process.arch): Platform {
  const of = { os: 'linux', architecture: ARCHITECTURES[cpu] ?? cpu }
  return cpu === 'arm64' ? { ...of, variant: 'v8' } : of
}

/** The variants that engines know an order of, the most capable first. */
const VARIANTS: ReadonlyMap<string, readonly string[]> = new Map([
  ['arm', ['v8', 'v7', 'v6', 'v5']],
  ['arm64', ['v8']],
])

/** The variants that may run where `wanted` is; that which engines prefer is the first. Empty: an image that names none. */
function variants({ architecture, variant }: Platform): readonly string[] {
  const known = VARIANTS.get(architecture) ?? []
  if (variant === undefined) return ['', ...known]
  const at = known.indexOf(variant)
  return [...(at < 0 ? [variant] : known.slice(at)), '']
}

const ZSTD = 'io.github.containers.compression.zstd'

/**
 * The manifest that engines choose (containers/image, `ChooseInstance`): of the best variant the first, but in an OCI index before it
 * one that is marked as zstd, and after all others one that names no platform.
 * @throws Failure missing
 */
export function choosePlatform(index: ImageIndex, wanted: Platform, what: string): Descriptor {
  const order = variants(wanted)
  const isOci = index.mediaType !== DOCKER_LIST
  const rank = ({ platform: of, annotations }: ImageIndex['manifests'][number]): number => {
    const isSame = of?.os === wanted.os && of.architecture === wanted.architecture
    const at = isSame ? order.indexOf(of.variant ?? '') : of === undefined && isOci ? order.length : -1
    if (at < 0) return Number.POSITIVE_INFINITY
    return isOci && annotations[ZSTD] === 'true' ? at : at + 0.5
  }
  const best = Math.min(...index.manifests.map(rank))
  const found = index.manifests.find((each) => rank(each) === best)
  if (found !== undefined && Number.isFinite(best)) return found
  const offered = index.manifests.map((each) => each.platform && platformText(each.platform)).filter(Boolean)
  throw Failure.missing(`${what} has no image for ${platformText(wanted)}`, {
    why: `it offers ${offered.join(', ') || 'no platform at all'}`,
    fix: 'Name one of these with --platform.',
  })
}

/** `linux/arm64/v8`; what is empty is unknown. */
export function platformText({ os, architecture, variant }: Platform): string {
  const parts = [os || UNKNOWN, architecture || UNKNOWN]
  return (variant === undefined ? parts : [...parts, variant]).join('/')
}

/** As other tools write it. */
const UNKNOWN = 'unknown'
