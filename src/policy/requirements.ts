// policy.json, parsed: what is required of an image before its signature counts (containers-policy.json(5)). As strict as the engines'
// own reader: whatever is unknown, doubled or of another type makes the whole file invalid, since a typing error must not open a door.
import { Failure } from '../errors.ts'
import { isPrefix, parseNamed, type SignedIdentity } from './signed-identity.ts'
import { asList, asObject, asRecord, asText, fromBase64, parseStrictJson, type StrictJson } from './strict-json.ts'

/** Where keys lie: in files, or in the policy itself. */
export type KeySource = { paths: readonly string[] } | { contents: readonly Uint8Array[] }

export type Requirement =
  | { type: 'insecureAcceptAnything' }
  | { type: 'reject' }
  | { type: 'signedBaseLayer' }
  | { type: 'signedBy'; keyType: string; keys: KeySource; identity: SignedIdentity }
  | {
      type: 'sigstoreSigned'
      /** Certificates by an authority are named, but not evaluated. */
      keys: KeySource | 'fulcio' | 'pki'
      rekor: KeySource | undefined
      identity: SignedIdentity
    }

/** A policy.json. */
export interface PolicyFile {
  default: readonly Requirement[]
  /** Transport -> scope ('' is the transport's default) -> requirements. */
  transports: ReadonlyMap<string, ReadonlyMap<string, readonly Requirement[]>>
}

const GPG_KEY_TYPES = ['GPGKeys', 'signedByGPGKeys', 'X509Certificates', 'signedByX509CAs']
/** Each requirement may cost a signature's check for each signature. */
const REQUIREMENTS_MAX = 64
const KEYS_MAX = 64

/** @throws Failure usage: naming `path` and what is wrong in it */
export function parsePolicy(bytes: Uint8Array, path: string): PolicyFile {
  try {
    const root = asRecord(parseStrictJson(bytes, path), path, ['default'], ['transports'])
    const transports = new Map<string, ReadonlyMap<string, readonly Requirement[]>>()
    for (const [transport, scopes] of root.has('transports') ? asObject(root.get('transports'), 'transports') : []) {
      const parsed = new Map<string, readonly Requirement[]>()
      for (const [scope, value] of asObject(scopes, `transport ${JSON.stringify(transport)}`)) {
        parsed.set(scope, requirements(value, `${transport} ${JSON.stringify(scope)}`))
      }
      transports.set(transport, parsed)
    }
    return { default: requirements(root.get('default'), 'default'), transports }
  } catch (cause) {
    throw Failure.usage(`${path} is no valid policy`, { cause, fix: 'See containers-policy.json(5).' })
  }
}

function requirements(value: StrictJson | undefined, what: string): Requirement[] {
  const list = asList(value, what)
  if (list.length === 0) throw Failure.corrupt(`${what} is empty: at least one requirement must be given`)
  if (list.length > REQUIREMENTS_MAX) throw Failure.limit(`${what} has more than ${REQUIREMENTS_MAX} requirements`)
  return list.map((each, i) => requirement(each, `${what}, requirement ${i + 1}`))
}

function requirement(value: StrictJson, what: string): Requirement {
  const type = asText(asObject(value, what).get('type'), `${what}: type`)
  switch (type) {
    case 'insecureAcceptAnything':
    case 'reject':
      asRecord(value, what, ['type'])
      return { type }
    case 'signedBaseLayer':
      signedIdentity(asRecord(value, what, ['type', 'baseLayerIdentity']).get('baseLayerIdentity'), what)
      return { type }
    case 'signedBy':
      return signedBy(value, what)
    case 'sigstoreSigned':
      return sigstoreSigned(value, what)
    default:
      throw Failure.corrupt(`${what} is of the unknown type ${JSON.stringify(type)}`)
  }
}

function signedBy(value: StrictJson, what: string): Requirement {
  const record = asRecord(value, what, ['type', 'keyType'], ['keyPath', 'keyPaths', 'keyData', 'signedIdentity'])
  const keyType = asText(record.get('keyType'), `${what}: keyType`)
  if (!GPG_KEY_TYPES.includes(keyType)) throw Failure.corrupt(`${what}: unknown keyType ${JSON.stringify(keyType)}`)
  const keys = keySource(record, 'key', what)
  if (keys === undefined) throw Failure.corrupt(`${what} lacks one of keyPath, keyPaths and keyData`)
  return { type: 'signedBy', keyType, keys, identity: signedIdentity(record.get('signedIdentity'), what) }
}

function sigstoreSigned(value: StrictJson, what: string): Requirement {
  const sources = ['Path', 'Paths', 'Data', 'Datas']
  const optional = [...sources.map((each) => `key${each}`), ...sources.map((each) => `rekorPublicKey${each}`)]
  const record = asRecord(value, what, ['type'], [...optional, 'fulcio', 'pki', 'signedIdentity'])
  const given = [keySource(record, 'key', what), authority(record, 'fulcio', what), authority(record, 'pki', what)]
  const [keys, ...more] = given.filter((each) => each !== undefined)
  if (keys === undefined || more.length > 0) {
    throw Failure.corrupt(`${what} needs exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki`)
  }
  const rekor = keySource(record, 'rekorPublicKey', what)
  if (keys === 'fulcio' && rekor === undefined) throw Failure.corrupt(`${what}: fulcio needs a rekorPublicKey`)
  if (keys === 'pki' && rekor !== undefined) throw Failure.corrupt(`${what}: pki goes with no rekorPublicKey`)
  return { type: 'sigstoreSigned', keys, rekor, identity: signedIdentity(record.get('signedIdentity'), what) }
}

/** Of PREFIXPath, PREFIXPaths, PREFIXData and PREFIXDatas, the one that is there. @throws Failure corrupt: more than one, or an empty one */
function keySource(record: ReadonlyMap<string, StrictJson>, prefix: string, what: string): KeySource | undefined {
  const [key, ...more] = ['Path', 'Paths', 'Data', 'Datas']
    .map((each) => prefix + each)
    .filter((each) => record.has(each))
  if (key === undefined) return undefined
  if (more.length > 0) throw Failure.corrupt(`${what} has both ${key} and ${more.join(', ')}`)
  const value = record.get(key)
  const texts = (key.endsWith('s') ? asList(value, `${what}: ${key}`) : [value]).map((each) =>
    asText(each, `${what}: ${key}`),
  )
  if (texts.length === 0 || texts.includes('')) throw Failure.corrupt(`${what}: ${key} is empty`)
  if (texts.length > KEYS_MAX) throw Failure.limit(`${what}: ${key} has more than ${KEYS_MAX} members`)
  if (key.includes('Path')) return { paths: texts }
  return { contents: texts.map((each) => fromBase64(each, `${what}: ${key}`)) }
}

const AUTHORITY_KEYS = {
  fulcio: ['caPath', 'caData', 'oidcIssuer', 'subjectEmail'],
  pki: ['caRootsPath', 'caRootsData', 'caIntermediatesPath', 'caIntermediatesData', 'subjectEmail', 'subjectHostname'],
}

function authority<K extends 'fulcio' | 'pki'>(record: ReadonlyMap<string, StrictJson>, key: K, what: string) {
  if (!record.has(key)) return undefined
  const fields = asRecord(record.get(key), `${what}: ${key}`, [], AUTHORITY_KEYS[key])
  for (const [name, value] of fields) asText(value, `${what}: ${key}: ${name}`)
  return key
}

function signedIdentity(value: StrictJson | undefined, what: string): SignedIdentity {
  if (value === undefined) return { type: 'matchRepoDigestOrExact' }
  const of = `${what}: signedIdentity`
  const type = asText(asObject(value, of).get('type'), `${of}: type`)
  const named = (key: string) => {
    const text = asText(asRecord(value, of, ['type', key]).get(key), `${of}: ${key}`)
    const reference = parseNamed(text)
    if (reference === undefined) throw Failure.corrupt(`${of}: ${JSON.stringify(text)} is no image reference`)
    return reference
  }
  switch (type) {
    case 'matchExact':
    case 'matchRepoDigestOrExact':
    case 'matchRepository':
      asRecord(value, of, ['type'])
      return { type }
    case 'exactReference': {
      const reference = named('dockerReference')
      if (reference.tag === undefined && reference.digest === undefined) {
        throw Failure.corrupt(`${of}: ${reference.name} has neither a tag nor a digest`)
      }
      return { type, reference }
    }
    case 'exactRepository':
      return { type, reference: named('dockerRepository') }
    case 'remapIdentity': {
      const record = asRecord(value, of, ['type', 'prefix', 'signedPrefix'])
      const prefix = asText(record.get('prefix'), `${of}: prefix`)
      const signedPrefix = asText(record.get('signedPrefix'), `${of}: signedPrefix`)
      for (const each of [prefix, signedPrefix]) {
        if (!isPrefix(each)) throw Failure.corrupt(`${of}: ${JSON.stringify(each)} is no prefix of a reference`)
      }
      return { type, prefix, signedPrefix }
    }
    default:
      throw Failure.corrupt(`${of} is of the unknown type ${JSON.stringify(type)}`)
  }
}
