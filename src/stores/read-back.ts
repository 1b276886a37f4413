// What was listed in an earlier life, opened to be listed again under the same names. What disk alone gives is there at once; what is
// damaged or gone is fetched again by its digest, for as long as a start may take, and then behind it until it is there.
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { parseReference, type Reference } from '../image/reference.ts'
import type { ResolvedImage } from '../layer/image.ts'
import { LimitEach, mapLimited } from '../limit.ts'
import type { Resolver } from './asked-image.ts'
import type { TrustsDiffIds } from './identity.ts'
import { type Chain, type ChainParts, closeChain, type ListedImage, openChain } from './image-chain.ts'
import { patiently } from './patience.ts'

export interface ReadBackParts extends ChainParts {
  /** Ends what goes on behind the start. */
  signal: AbortSignal
}

export interface ReadBack {
  /** In the order in which they were listed; as far as they could be opened. */
  chains: readonly Chain[]
  /** Those that could not be, or not to their ends, and may be another time. */
  left: readonly Left[]
}

/** An image that is not listed as it was. */
export interface Left {
  listed: ListedImage
  /** Layers that are. */
  links: number
  /** Under way. */
  attempt: Promise<Chain> | undefined
}

/** Images that are opened at the same time: each layer's image on disk is hashed. */
const READ_AT_ONCE = 8
/** A slow registry must not hold the agent up, nor engines, which see an empty store meanwhile; a near one answers within that. */
const START_MS = 10_000
/** All that wait for signatures of which it is not known on disk whether they were accepted. */
const BELIEVE_MS = 5_000
const AGAIN_MIN_MS = 5_000
/** A registry that is away is asked that often, for a manifest an image. */
const AGAIN_MAX_MS = 60_000
/** Under the names of before; what is known against them since is for whoever shows them. */
const AS_BEFORE = { isAmbiguous: () => false, whyNot: () => undefined }

/**
 * Everything that was listed. What an earlier policy believed and this one does not is left out, and logged.
 * @param startMs how long registries are waited for, all together
 * @throws Failure system
 */
export async function readBack(parts: ReadBackParts, startMs = START_MS): Promise<ReadBack> {
  const { listings, log, signal } = parts
  const all = await listings.all()
  const kept = await mapLimited(all, READ_AT_ONCE, keptOpener(parts)) // never fails
  const turns = new LimitEach<string>(READ_AT_ONCE)
  const attempts = kept.map((each) => {
    if (!isPassing(each)) return undefined
    const { listed } = each
    return outcomeOf(listed, () => turns.take(originOf(listed), () => fetchAgain(parts, listed), signal))
  })
  const stop = new AbortController()
  const over = sleep(startMs, undefined, { signal: stop.signal }).catch(() => {}) // nobody waits for it any more
  await Promise.race([over, Promise.all(attempts)])
  stop.abort()
  const chains: Chain[] = []
  const left: Left[] = []
  for (const [i, before] of kept.entries()) {
    const attempt = attempts[i]
    const settled = await Promise.race([attempt, undefined])
    const { listed, chain, error } = further(before, settled)
    for (const each of [before.chain, settled?.chain]) if (each !== undefined && each !== chain) await closeChain(each)
    if (chain !== undefined) chains.push(chain)
    if (chain === undefined) log(notAgain(listed.reference, error))
    if (!isPassing(settled ?? before)) continue
    const running = settled === undefined ? attempt?.then(chainOf) : undefined
    running?.catch(() => {}) // whoever goes on with it hears of that
    left.push({ listed, links: chain?.links.length ?? 0, attempt: running })
  }
  return { chains, left }
}

/** What became of opening an image. */
interface ReadImage {
  listed: ListedImage
  chain: Chain | undefined
  error: unknown
}

function keptOpener(parts: ReadBackParts): (listed: ListedImage) => Promise<ReadImage> {
  const until = performance.now() + BELIEVE_MS
  const trustsDiffIds: TrustsDiffIds = (image, failing) => {
    const totalMs = Math.max(0, until - performance.now())
    return patiently(parts.trustsDiffIds(image, failing), () => performance.now(), { stallMs: totalMs, totalMs })
  }
  return (listed) => outcomeOf(listed, () => openKept({ ...parts, trustsDiffIds }, listed))
}

async function outcomeOf(listed: ListedImage, open: () => Promise<Chain>): Promise<ReadImage> {
  try {
    return { listed, chain: await open(), error: undefined }
  } catch (error) {
    return { listed, chain: undefined, error }
  }
}

/** @throws why there is none */
function chainOf({ chain, error }: ReadImage): Chain {
  if (chain === undefined) throw error
  return chain
}

/** Whether another try may bring more. */
function isPassing({ chain, error }: ReadImage): boolean {
  return chain === undefined ? !isAborted(error) : chain.passing === true
}

function isAborted(error: unknown): boolean {
  return error instanceof Failure && error.code === 'aborted'
}

function further(before: ReadImage, after: ReadImage | undefined): ReadImage {
  if (after === undefined) return before
  const links = ({ chain }: ReadImage) => chain?.links.length ?? -1
  return links(after) >= links(before) ? after : before
}

/** From disk alone; nobody waits for a registry. @throws Failure missing: the image is not in the cache */
async function openKept({ images, layers, trustsDiffIds }: ChainParts, listed: ListedImage): Promise<Chain> {
  const reference = parseReference(listed.reference)
  const kept = await images.kept({ ...reference, digest: listed.manifest })
  if (kept === undefined) throw Failure.missing(`manifest ${listed.manifest}, or its config, is not in the cache`)
  const opening = { layers, trustsDiffIds, ...AS_BEFORE }
  return await openChain({ ...kept, reference }, opening, 'none', { listed, from: 'disk' })
}

/** The same, with what of it is damaged or gone fetched again. @throws Failure as Images.resolve */
async function fetchAgain(
  { images, layers, trustsDiffIds, signal }: ReadBackParts,
  listed: ListedImage,
): Promise<Chain> {
  const reference = parseReference(listed.reference)
  const image = await imageOf(reference, listed.manifest, images, signal)
  const opening = { layers, trustsDiffIds, ...AS_BEFORE }
  return await openChain({ ...image, reference }, opening, 'none', { listed, from: 'anywhere' })
}

/** By its digest, or by its tag while that means the same. */
async function imageOf(
  reference: Reference,
  manifest: Digest,
  images: Resolver,
  signal: AbortSignal,
): Promise<ResolvedImage> {
  const { digest: _, ...named } = reference
  try {
    return await images.resolve({ ...named, digest: manifest }, signal)
  } catch (error) {
    // a layout has by their digests only what its index names
    if (!(error instanceof Failure) || error.code !== 'missing' || reference.tag === undefined) throw error
    const tagged = await images.resolve(named, signal)
    if (tagged.digest === manifest) return tagged
    throw error
  }
}

/** What is said of an image that was listed in an earlier life, and is not in this one. */
export function notAgain(reference: string, error: unknown): string {
  return `${reference}: its layers are not listed again: ${describe(error)}`
}

/** Lists what could not be when the agent started, as soon as it can be. Ends when nothing is left, or with `signal`; never rejects. */
export async function listLeft(
  parts: ReadBackParts,
  left: readonly Left[],
  again: (chain: Chain) => Promise<void>,
): Promise<void> {
  const { log, signal } = parts
  if (left.length === 0) return
  log(`what is gone of ${left.length} listed before is asked for again until its registries give it back`)
  const turns = new LimitEach<string>(READ_AT_ONCE)
  const keepTrying = async ({ listed, links: before, attempt }: Left): Promise<void> => {
    let links = before
    let trying = attempt
    for (let waitMs = AGAIN_MIN_MS; !signal.aborted; waitMs = Math.min(waitMs * 2, AGAIN_MAX_MS)) {
      if (trying === undefined) {
        await sleep(waitMs, undefined, { signal, ref: false }).catch(() => {}) // then it is over
        trying = turns.take(originOf(listed), () => fetchAgain(parts, listed), signal)
      }
      try {
        const chain = await trying
        if (chain.links.length > links) await again(chain)
        else await closeChain(chain)
        links = Math.max(links, chain.links.length)
        if (chain.why === undefined) log(`${listed.reference}: its layers are listed again`)
        if (chain.passing !== true) return
      } catch (error) {
        if (isAborted(error)) return
      }
      trying = undefined
    }
  }
  await Promise.all(left.map(keepTrying))
}

/** Whose turn a fetch takes: images of one registry do not wait for another registry that is silent. */
function originOf({ reference }: ListedImage): string {
  const parsed = parseReference(reference)
  return parsed.transport === 'oci' ? parsed.dir : parsed.host
}
