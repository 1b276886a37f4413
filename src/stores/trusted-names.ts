// Repositories whose images are believed: patterns of whole components, `registry.example.com/team/*`. They are compared with the name that
// an image is asked for by, never with that of a mirror or a location. Pure.
import { Failure } from '../errors.ts'
import { parseRegistryReference, type RegistryReference } from '../image/reference.ts'

/** A host, then a repository's components; ANY stands for any one of these. */
export type TrustPattern = readonly string[]

const ANY = '*'
/** A component that may stand where ANY does, to have the rest read as a reference is. */
const STAND_IN = 'x'

/** @throws Failure usage */
export function parseTrustPattern(text: string): TrustPattern {
  const parts = text.split('/')
  const refuse = (why: string) =>
    Failure.usage(`--trust ${JSON.stringify(text)} names no repositories`, {
      why,
      fix: 'Write a host and a repository, of which components may be *: registry.example.com/team/*.',
    })
  if (parts.length < 2) throw refuse('it has no repository')
  if (parts[0]?.includes(ANY)) throw refuse('its host is not spelled out')
  if (parts.some((each) => each.includes(ANY) && each !== ANY)) throw refuse('* stands for a whole component')
  if (text.includes('@') || parts.at(-1)?.includes(':')) throw refuse('it has a tag or a digest')
  const { host, repository } = parseRegistryReference(parts.map((each) => (each === ANY ? STAND_IN : each)).join('/'))
  const named = [host, ...repository.split('/')]
  // what a short name stands for is longer, at its beginning
  const added = named.length - parts.length
  return named.map((each, i) => (parts[i - added] === ANY ? ANY : each))
}

/** Whether a reference is one of a pattern's repositories. */
export function isTrusted({ host, repository }: RegistryReference, pattern: TrustPattern): boolean {
  const name = [host, ...repository.split('/')]
  return name.length === pattern.length && name.every((each, i) => pattern[i] === ANY || pattern[i] === each)
}
