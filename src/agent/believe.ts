// Which claims of images `serve --diffid` believes.
import { describe, Failure } from '../errors.ts'
import { referenceText } from '../image/reference.ts'
import { loadPolicy, type PolicyPlaces, policyPlaces } from '../policy/policy.ts'
import type { Registries } from '../registry/registries.ts'
import type { Store } from '../store/store.ts'
import { type Believe, believeAll, believeNone, type DiffIdPolicy } from '../stores/identity.ts'

/** An engine waits for the layers of an image that long. */
const CHECK_TIMEOUT_MS = 10_000
/** One pull asks for each layer. */
const CHECK_AGAIN_MS = 10_000
/** Images whose checks are remembered. */
const CHECKS_MAX = 1000

/** @throws Failure missing, usage: `signed` without a policy.json, or with one that is not valid */
export async function believer(
  policy: DiffIdPolicy,
  registries: Pick<Registries, 'signatures'>,
  store: Pick<Store, 'accepted' | 'keepAccepted'>,
  places: PolicyPlaces = policyPlaces(),
): Promise<Believe> {
  if (policy === 'claimed') return believeAll
  if (policy === 'proven') return believeNone
  await loadPolicy(places, AbortSignal.timeout(CHECK_TIMEOUT_MS)) // said at the start, not at the first image
  const checks = new Map<string, { at: number; outcome: ReturnType<Believe> }>()
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
  async function check({ reference, digest, manifestBytes }: Parameters<Believe>[0]): Promise<true | string> {
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
