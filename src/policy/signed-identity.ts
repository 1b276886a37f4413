// Which image a signature was made for, and whether that is the one that was asked for (containers-policy.json(5), signedIdentity).
import { type Digest, isDigest } from '../image/digest.ts'
import { parseRegistryReference, type RegistryReference } from '../image/reference.ts'

/** A full name with what follows it. */
export interface Named {
  /** `host/repository` */
  name: string
  tag: string | undefined
  digest: Digest | undefined
}

/** How the reference in a signature must relate to the image's. */
export type SignedIdentity =
  | { type: 'matchExact' }
  | { type: 'matchRepoDigestOrExact' }
  | { type: 'matchRepository' }
  | { type: 'exactReference'; reference: Named }
  | { type: 'exactRepository'; reference: Named }
  | { type: 'remapIdentity'; prefix: string; signedPrefix: string }

const COMPONENT = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])'
const HOST = `(?:${COMPONENT}(?:\\.${COMPONENT})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`
const PART = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*'
const PREFIX = new RegExp(`^${HOST}(?:/${PART})*$`)

/** Whether `text` may be a prefix of remapIdentity: a host, perhaps with a path. */
export function isPrefix(text: string): boolean {
  return text.length <= 512 && PREFIX.test(text)
}

/** The image's own reference, as engines name it. With a digest, the tag says nothing. */
export function named({ host, repository, tag, digest }: RegistryReference): Named {
  const name = `${host === 'index.docker.io' ? 'docker.io' : host}/${repository}`
  return digest === undefined ? { name, tag: tag ?? 'latest', digest } : { name, tag: undefined, digest }
}

/** A reference as a signature or a policy writes it: nothing is added, as a tag that is meant is written. Undefined: no reference. */
export function parseNamed(text: string): Named | undefined {
  if (text.length > 1024) return undefined
  const [before = '', digest] = text.split('@')
  const slash = before.indexOf('/')
  const first = slash < 0 ? '' : before.slice(0, slash)
  // our own references are lower case: a name that differs in its case is another
  if (first !== first.toLowerCase() || /^[0-9a-f]{64}$/.test(before)) return undefined
  let parsed: RegistryReference
  try {
    parsed = parseRegistryReference(text)
  } catch {
    return undefined // whatever it is, it names no image
  }
  const { name } = named(parsed)
  const colon = before.indexOf(':', before.lastIndexOf('/') + 1)
  return {
    name,
    tag: colon < 0 ? undefined : before.slice(colon + 1),
    digest: isDigest(digest) ? digest : undefined,
  }
}

/** `host/repository[:tag][@digest]` */
export function namedText({ name, tag, digest }: Named): string {
  return `${name}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`
}

/** Why a signature made for `signed` is none for the image `intended`; undefined when it is one. */
export function whyNotFor(rule: SignedIdentity, intended: Named, signed: string): string | undefined {
  const found = parseNamed(signed)
  const shown = JSON.stringify(signed.slice(0, 300))
  if (found === undefined) return `it is for ${shown}, which is no image reference`
  const want = (text: string, fits: boolean) => (fits ? undefined : `it is for ${shown}, the policy wants ${text}`)
  switch (rule.type) {
    case 'matchExact':
      return want(namedText(intended), exact(intended, found))
    case 'matchRepoDigestOrExact':
      return want(repositoryOrExactText(intended), repositoryOrExact(intended, found))
    case 'matchRepository':
      return want(`the repository ${intended.name}`, found.name === intended.name)
    case 'exactReference':
      return want(namedText(rule.reference), exact(rule.reference, found))
    case 'exactRepository':
      return want(`the repository ${rule.reference.name}`, found.name === rule.reference.name)
    case 'remapIdentity': {
      const other = remapped(rule, intended)
      if (other === undefined) return `the policy's remapIdentity makes no reference of ${namedText(intended)}`
      return want(repositoryOrExactText(other), repositoryOrExact(other, found))
    }
  }
}

function exact(intended: Named, found: Named): boolean {
  if (found.tag === undefined && found.digest === undefined) return false
  return namedText(intended) === namedText(found)
}

/** An image that is asked for by digest may be signed under any tag of its repository: the digest is compared anyway. */
function repositoryOrExact(intended: Named, found: Named): boolean {
  if (found.tag === undefined && found.digest === undefined) return false
  return intended.tag === undefined ? found.name === intended.name : namedText(intended) === namedText(found)
}

function repositoryOrExactText(intended: Named): string {
  return intended.tag === undefined ? `a reference in ${intended.name}` : namedText(intended)
}

function remapped({ prefix, signedPrefix }: { prefix: string; signedPrefix: string }, intended: Named) {
  const { name } = intended
  if (name !== prefix && !name.startsWith(`${prefix}/`)) return intended
  const text = namedText({ ...intended, name: `${signedPrefix}${name.slice(prefix.length)}` })
  const other = parseNamed(text)
  return other !== undefined && namedText(other) === text ? other : undefined
}
