// Makes what decides, by `serve --diffid` and `--trust`, which images' claims of DiffIDs are trusted.
import { describe, Failure } from '../errors.ts'
import { referenceText } from '../image/reference.ts'
import type { PolicyPlaces } from '../policy/policy.ts'
import type { Registries } from '../registry/registries.ts'
import type { Store } from '../store/store.ts'
import type { DiffIdPolicy } from '../stores/diff-id-policy.ts'
import { type TrustsDiffIds, trustAll, trustNone } from '../stores/identity.ts'
import { isTrusted, parseTrustPattern, type TrustPattern } from '../stores/trusted-names.ts'

/** An engine waits for the layers of an image that long. */
const CHECK_TIMEOUT_MS = 10_000
/** A check answers for so long: one pull asks once a layer. */
const CHECK_AGAIN_MS = 10_000
/** Images whose checks are remembered. */
const CHECKS_MAX = 1000

/** Whose claims are trusted. */
export interface Belief {
  policy: DiffIdPolicy
  /** Of `guarded` and `claimed`: of these repositories' images alone; none: of all images. */
  trust: readonly TrustPattern[]
}

/** --diffid and --trust. @throws Failure usage */
export function beliefOf(policy: DiffIdPolicy, trust: readonly string[]): Belief {
  if (trust.length > 0 && policy !== 'guarded' && policy !== 'claimed') {
    throw Failure.usage(`--trust narrows what --diffid ${policy} does not believe`, {
      fix: 'Give it with --diffid guarded, or with --diffid claimed.',
    })
  }
  return { policy, trust: trust.map(parseTrustPattern) }
}

/** @throws Failure missing, usage: `signed` without a policy.json, or with one that is not valid */
export async function diffIdTrust(
  { policy, trust }: Belief,
  registries: Pick<Registries, 'signatures' | 'verifies'>,
  store: Pick<Store, 'accepted' | 'keepAccepted'>,
  where?: PolicyPlaces,
): Promise<TrustsDiffIds> {
  if (policy === 'proven') return trustNone
  if (policy !== 'signed') return trust.length === 0 ? trustAll : trustNamed(trust, registries)
  // what reads signatures, and YAML, is a tenth of what an agent loads at its start, and most need none of it
  const { loadPolicy, policyPlaces } = await import('../policy/policy.ts')
  const places = where ?? policyPlaces()
  await loadPolicy(places, AbortSignal.timeout(CHECK_TIMEOUT_MS)) // said at the start, not at the first image
  const checks = new Map<string, { at: number; outcome: ReturnType<TrustsDiffIds> }>()
  return async (image, failing = 'why') => {
    const key = `${referenceText(image.reference)} ${image.digest}`
    const now = performance.now()
    const known = checks.get(key)
    const isRecent = known !== undefined && now - known.at < CHECK_AGAIN_MS
    const outcome = isRecent ? known.outcome : check(image)
    if (!isRecent) {
      if (checks.size >= CHECKS_MAX) checks.clear()
      checks.set(key, { at: now, outcome })
    }
    try {
      return await outcome
    } catch (error) {
      if (!(error instanceof Failure) || failing === 'throw') throw error
      return `its DiffIDs are only claimed by the image, and its signatures cannot be checked now: ${describe(error)}`
    }
  }

  /** What was accepted stays so under the same policy.json: after a restart nobody has to be asked. */
  async function check({ reference, digest, manifestBytes }: Parameters<TrustsDiffIds>[0]): Promise<true | string> {
    if (reference.transport !== 'docker') return 'only images of registries have signatures that policy.json speaks of'
    const signal = AbortSignal.timeout(CHECK_TIMEOUT_MS)
    const loaded = await loadPolicy(places, signal)
    const text = referenceText(reference)
    if (await store.accepted(text, digest, loaded.digest)) return true
    const candidate = { reference, manifest: manifestBytes }
    const verdict = await loaded.check(candidate, registries.signatures(reference), signal)
    if (!verdict.accepted)
      return `its DiffIDs are only claimed by the image, and no signature vouches for them: ${verdict.why}`
    await store.keepAccepted(text, digest, loaded.digest)
    return true
  }
}

/** Trusts images of some repositories, as far as it is certain that they come from there. */
function trustNamed(trust: readonly TrustPattern[], registries: Pick<Registries, 'verifies'>): TrustsDiffIds {
  return async ({ reference }, failing = 'why') => {
    if (reference.transport !== 'docker') return `${UNTRUSTED}: an image of a folder has no repository that could be`
    if (!trust.some((each) => isTrusted(reference, each))) return `${UNTRUSTED}: no --trust names its repository`
    try {
      if (await registries.verifies(reference)) return true
    } catch (error) {
      if (!(error instanceof Failure) || failing === 'throw') throw error
      return `${UNTRUSTED}: ${describe(error)}`
    }
    return `${UNTRUSTED}: its registry, or a mirror of it, may answer without TLS that is verified, so it may come from anybody`
  }
}

const UNTRUSTED = 'its DiffIDs are only claimed by the image, which is not believed'
