// Image references: `docker://HOST/REPO:TAG|@DIGEST`, plain names, `oci:DIR[:TAG]`.
import { Failure } from '../errors.ts'
import { type Digest, isDigest } from './digest.ts'

export interface RegistryReference {
  transport: 'docker'
  /** `host[:port]`, lower case. */
  host: string
  repository: string
  tag?: string
  digest?: Digest
}

export interface LayoutReference {
  transport: 'oci'
  dir: string
  tag?: string
  digest?: Digest
}

export type Reference = RegistryReference | LayoutReference

// distribution reference grammar: path components, tag (127 more characters), host
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/
const TAG = /^\w[\w.-]{0,127}$/
const HOST =
  /^(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?$/
const NAME_MAX = 255
// image layout specification, org.opencontainers.image.ref.name
const LAYOUT_COMPONENT = '[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*'
const LAYOUT_TAG = new RegExp(`^${LAYOUT_COMPONENT}(?:/${LAYOUT_COMPONENT})*$`)

/** @throws Failure usage */
export function parseReference(text: string): Reference {
  if (text.startsWith('oci:')) return parseLayout(text)
  return parseRegistryReference(text.startsWith('docker://') ? text.slice('docker://'.length) : text, text)
}

/** The first colon ends the folder, as engines have it: a layout's tag is any name, often a whole reference. */
function parseLayout(text: string): LayoutReference {
  const rest = text.slice('oci:'.length)
  const colon = rest.indexOf(':')
  const before = colon < 0 ? rest : rest.slice(0, colon)
  const after = colon < 0 ? '' : rest.slice(colon + 1)
  const dir = before.replace(/@sha256$/, '')
  if (dir === '') throw malformed(text, 'the folder is missing')
  if (dir !== before && colon >= 0) {
    const digest = `sha256:${after}`
    if (!isDigest(digest)) throw malformed(text, 'the digest is malformed')
    return { transport: 'oci', dir, digest }
  }
  if (after === '') return { transport: 'oci', dir: before }
  if (!LAYOUT_TAG.test(after)) throw malformed(text, 'the tag is malformed')
  return { transport: 'oci', dir: before, tag: after }
}

/** A name without transport, as engines write it: `registry.example.com/repo:tag`. @throws Failure usage */
export function parseRegistryReference(name: string, text: string = name): RegistryReference {
  const [before = '', digest, ...more] = name.split('@')
  if (more.length > 0 || (digest !== undefined && !isDigest(digest))) throw malformed(text, 'the digest is malformed')
  const colon = before.indexOf(':', before.lastIndexOf('/') + 1)
  const tag = colon < 0 ? undefined : before.slice(colon + 1)
  const path = colon < 0 ? before : before.slice(0, colon)
  if (tag !== undefined && !TAG.test(tag)) throw malformed(text, 'the tag is malformed')
  const slash = path.indexOf('/')
  const first = slash < 0 ? '' : path.slice(0, slash).toLowerCase()
  const named = first.includes('.') || first.includes(':') || first === 'localhost'
  const host = named ? withoutAlias(first) : 'docker.io'
  let repository = named ? path.slice(slash + 1) : path
  if (host === 'docker.io' && !repository.includes('/')) repository = `library/${repository}`
  if (!HOST.test(host)) throw malformed(text, `the host ${JSON.stringify(host)} is malformed`)
  if (repository.length > NAME_MAX || !repository.split('/').every((each) => COMPONENT.test(each))) {
    throw malformed(text, `the repository ${JSON.stringify(repository)} is malformed`)
  }
  const at = { transport: 'docker' as const, host, repository }
  if (digest !== undefined) return tag === undefined ? { ...at, digest } : { ...at, tag, digest }
  return { ...at, tag: tag ?? 'latest' }
}

/** Other names of Docker's hub: of its index, which engines give to it, too, and of the server that really answers. */
const DOCKER_HUB = new Set(['index.docker.io', 'registry-1.docker.io'])

export function withoutAlias(host: string): string {
  return DOCKER_HUB.has(host) ? 'docker.io' : host
}

/** As settings may spell a name that begins with a host: itself, and with that host's other names. */
export function aliasesOf(name: string): string[] {
  if (!/^docker\.io(?![^/:@])/.test(name)) return [name]
  return [name, ...[...DOCKER_HUB].map((alias) => alias + name.slice('docker.io'.length))]
}

/** The canonical text, without transport for registries (what engines and auth files use as a key). */
export function referenceText(of: Reference): string {
  const version = `${of.tag === undefined ? '' : `:${of.tag}`}${of.digest === undefined ? '' : `@${of.digest}`}`
  return of.transport === 'oci' ? `oci:${of.dir}${version}` : `${of.host}/${of.repository}${version}`
}

/** Of all versions of an image: the canonical text without tag and digest. */
export function repositoryText(of: Reference): string {
  return of.transport === 'oci' ? `oci:${of.dir}` : `${of.host}/${of.repository}`
}

function malformed(text: string, why: string): Failure {
  return Failure.usage(`${JSON.stringify(text)} is no image reference`, {
    why,
    fix: 'Write docker://registry.example.com/repository:tag, or oci:DIR:TAG for an OCI layout.',
  })
}
