// containers' policy.json, evaluated: whether somebody whom this machine trusts has signed an image's manifest, and with it the
// DiffIDs of its layers (the manifest names the config by digest, the config names them). Being allowed to run is not that: an image
// that the policy accepts unsigned has nobody who vouches for what it claims.
import { homedir } from 'node:os'
import { join } from 'node:path'
import { Failure } from '../errors.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import type { RegistryReference } from '../image/reference.ts'
import { advice, type Judge, judgeFor, type Signed } from './judge.ts'
import { homeOf, type RegistriesD, readRegistriesD } from './registries-d.ts'
import { type PolicyFile, parsePolicy, type Requirement } from './requirements.ts'
import { scopes } from './scope.ts'
import { isThere, readBytes } from './settings-file.ts'
import { named, namedText } from './signed-identity.ts'
import { endIfAborted, type Sources, type StoredSignature, storedSignatures } from './stored-signatures.ts'

/** Where the settings lie; tests give others. */
export interface PolicyPlaces {
  /** Of the user. */
  home: string
  /** /etc */
  etc: string
  /** Where engines put signatures when nothing is configured: for root the system's folder, for others one of their own. */
  signatures: string
  /** A policy.json instead of the usual ones. */
  policy?: string
  /** A registries.d instead of the usual ones. */
  registriesD?: string
}

/** This process's own, as the engines of this user have them. */
export function policyPlaces(): PolicyPlaces {
  const home = homedir()
  const root = process.getuid?.() === 0
  const signatures = root ? '/var/lib/containers/sigstore' : join(home, '.local/share/containers/sigstore')
  return { home, etc: '/etc', signatures }
}

/** An image whose signatures are asked for. */
export interface Candidate {
  /** As the engine names it: before mirrors. */
  reference: RegistryReference
  /** The exact bytes of the manifest of one platform; not of the index above it. */
  manifest: Uint8Array
}

/** `by`: who signed, and where that was found. `why`: what was wrong, with what to do. */
export type PolicyVerdict = { accepted: true; by: string } | { accepted: false; why: string }

/** What engines read, too. */
export interface Policy {
  /** Of policy.json's bytes. */
  readonly digest: Digest
  /**
   * Whether a signature vouches for the manifest: all requirements of its scope hold, and one of them at least wants a signature.
   * @throws Failure unavailable, timeout, aborted, denied, corrupt, limit, system: signatures could not be read; ask again later
   */
  check(candidate: Candidate, sources: Sources, signal: AbortSignal): Promise<PolicyVerdict>
}

/** Reads policy.json and registries.d once; keys are read at each check. @throws Failure missing, usage, system, limit */
export async function loadPolicy(places: PolicyPlaces, signal: AbortSignal): Promise<Policy> {
  const { home, etc } = places
  const own = join(home, '.config/containers')
  const path = places.policy ?? (await firstOf(join(own, 'policy.json'), join(etc, 'containers/policy.json')))
  const bytes = await readBytes(path)
  if (bytes === undefined) {
    throw Failure.missing(`there is no policy at ${path}`, {
      fix: 'Write one (containers-policy.json(5)), or serve with another --diffid.',
    })
  }
  const file = parsePolicy(bytes, path)
  const folder = places.registriesD ?? (await firstOf(join(own, 'registries.d'), join(etc, 'containers/registries.d')))
  const registriesD = await readRegistriesD(folder)
  endIfAborted(signal)
  const loaded = { file, path, registriesD, places }
  return { digest: digestOf(bytes), check: (candidate, sources, until) => check(loaded, candidate, sources, until) }
}

async function firstOf(preferred: string, otherwise: string): Promise<string> {
  return (await isThere(preferred)) ? preferred : otherwise
}

interface LoadedPolicy {
  file: PolicyFile
  path: string
  registriesD: RegistriesD
  places: PolicyPlaces
}

async function check(
  loaded: LoadedPolicy,
  candidate: Candidate,
  sources: Sources,
  signal: AbortSignal,
): Promise<PolicyVerdict> {
  const image = named(candidate.reference)
  const { scope, requirements } = applicable(loaded.file, scopes(image))
  const refuse = (why: string): PolicyVerdict => ({
    accepted: false,
    why: `${namedText(image)}: ${loaded.path}, ${scope}: ${why}`,
  })
  const judges: Judge[] = []
  for (const requirement of requirements) {
    if (requirement.type === 'insecureAcceptAnything') continue
    if (requirement.type === 'reject') return refuse('the policy rejects this image')
    if (requirement.type === 'signedBaseLayer') return refuse('signedBaseLayer is not evaluated, by engines neither')
    try {
      judges.push(await judgeFor(requirement))
    } catch (error) {
      return refuse(advice(error))
    }
  }
  if (judges.length === 0) {
    return refuse(
      'insecureAcceptAnything lets it run unsigned, but nobody vouches for its DiffIDs (require signedBy or sigstoreSigned there)',
    )
  }
  const signed = { image, manifest: digestOf(candidate.manifest) }
  const home = homeOf(loaded.registriesD, image)
  const lookaside = home.lookaside ?? `file://${loaded.places.signatures}`
  const found = await storedSignatures(image, signed.manifest, { ...home, lookaside }, sources, signal)
  const by: string[] = []
  for (const judge of judges) {
    const outcome = await satisfied(judge, found, signed)
    if ('why' in outcome) return refuse(outcome.why === '' ? nothing(judge, lookaside, home.attachments) : outcome.why)
    by.push(outcome.by)
  }
  return { accepted: true, by: by.join('; ') }
}

/** The requirements of the most telling scope; nothing is added from others. */
function applicable(
  file: PolicyFile,
  names: readonly string[],
): { scope: string; requirements: readonly Requirement[] } {
  const docker = file.transports.get('docker')
  for (const scope of [...names, '']) {
    const requirements = docker?.get(scope)
    if (requirements !== undefined) return { scope: `docker ${JSON.stringify(scope)}`, requirements }
  }
  return { scope: 'default', requirements: file.default }
}

/** One signature that counts is enough; `why` is empty where there was none of the kind at all. */
async function satisfied(
  judge: Judge,
  signatures: readonly StoredSignature[],
  signed: Signed,
): Promise<{ by: string } | { why: string }> {
  const whys: string[] = []
  for (const signature of signatures) {
    if (signature.kind !== judge.kind) continue
    try {
      return { by: `${await judge.judge(signature, signed)}, ${signature.at}` }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      whys.push(`${signature.at}: ${printable(advice(error))}`)
    }
  }
  // a registry may keep any number of them: the first ones tell enough
  const shown = whys.slice(0, WHYS_SHOWN)
  return {
    why: [...shown, ...(whys.length > shown.length ? [`and ${whys.length - shown.length} more`] : [])].join('; '),
  }
}

const WHYS_SHOWN = 3
const WHY_MAX_LENGTH = 600

/** What others wrote may stand in it. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, WHY_MAX_LENGTH)
}

function nothing({ kind }: Judge, lookaside: string, attachments: boolean): string {
  if (kind === 'simple') {
    return `it has no simple signature in ${lookaside} (sign it, or name the lookaside in registries.d)`
  }
  return attachments
    ? 'it has no sigstore signature in its repository (sign it)'
    : 'sigstore signatures are not looked for (set use-sigstore-attachments: true for it in registries.d)'
}
