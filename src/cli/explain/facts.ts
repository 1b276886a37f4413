// What is known of each layer of an image, put together for `explain`: pure, from its manifest, its indexes, the cache, and what the agent
// said.
import type { Unit } from '../../format/format.ts'
import { HOW_TO_CONVERT, type Units, type Unplanned } from '../../format/formats.ts'
import type { Digest } from '../../image/digest.ts'
import type { Descriptor } from '../../image/manifest.ts'
import type { ResolvedImage } from '../../layer/image.ts'
import type { DiffIdPolicy } from '../../stores/diff-id-policy.ts'
import type { ListOutcome } from '../../stores/outcome.ts'
import { togetherIn } from '../../stores/together.ts'
import type { KnownLayer } from './known.ts'
import type { LayerFacts, Unbelieved } from './layer.ts'
import { unnamedOf } from './unnamed.ts'

/** What facts are made of, beside the image. */
export interface Sources {
  plan: Units
  /** Of each layer, lowest first. */
  known: readonly KnownLayer[]
  /** Why indexes cannot be used. */
  unusable: ReadonlyMap<Descriptor, string>
  /** Of the last `pull` of the image, if the agent saw one. */
  outcome: ListOutcome | undefined
  policy: DiffIdPolicy
  /** Whether that believes the image's DiffIDs, or why not. */
  answer: true | string
  /** Layers that the agent reads whole while an engine waits. */
  waited: ReadonlySet<Descriptor>
  /** Whether the agent is served with --diffid-only. */
  only: boolean
}

/** For a layer whose index and tar differ; converting the same image again would not help. */
const DISTRUST =
  'Its index shows other files than its tar has, which no usual tool makes: find out who made it, and have it built anew.'

/** The agent cannot read it either, whole or not. */
const UNUSABLE = `Have the image built anew: ${HOW_TO_CONVERT}`

/** Of what is believed, and cannot be listed for that. */
const PROVE = 'Have it proven, once for all images: lazylayer pull --prove IMAGE.'

/** After lazylayer pull. */
const TRIED = `Do what that says and pull again, or have the image built anew: ${HOW_TO_CONVERT}`

/** What to say of a DiffID that is neither proven nor believed: where nothing is believed, only what is signed, only some repositories. */
const UNBELIEVED: Readonly<Record<'proven' | 'signed' | 'narrowed', Unbelieved>> = {
  proven: {
    why: 'the DiffID is only claimed by the image',
    fix: 'Have it proven, once for all images: lazylayer pull --prove IMAGE. Or choose what to believe (docs/security.md): serve --diffid signed, for images that somebody whom you trust has signed; serve --diffid guarded, which keeps images apart until they are proven; or, if every image on this machine may trust every other, serve --diffid claimed.',
  },
  narrowed: {
    why: 'the DiffID is only claimed by the image, and no --trust covers it',
    fix: 'Have it proven, once for all images: lazylayer pull --prove IMAGE. Or name its repository with --trust, if it is one of yours and comes over TLS that is verified.',
  },
  signed: {
    why: 'the DiffID is only claimed by the image, and no signature vouches for it',
    fix: 'Have the image signed (docs/signed.md), or proven, once for all images: lazylayer pull --prove IMAGE.',
  },
}

/** What to say of a DiffID that an image was believed to have, until another image came. */
const CONTESTED: Unbelieved = {
  why: 'another image says otherwise of its DiffID or its blob, and neither was proven in time',
  fix: 'Have it proven: lazylayer pull --prove IMAGE; the agent tries it, too, when the link is idle.',
}

/** Of each layer, lowest first. */
export function factsOf(image: Pick<ResolvedImage, 'manifest' | 'config'>, sources: Sources): LayerFacts[] {
  return image.manifest.layers.map((_, i) => factsOfLayer(image, i, sources))
}

function factsOfLayer(
  { manifest, config }: Pick<ResolvedImage, 'manifest' | 'config'>,
  i: number,
  { plan, known, unusable, outcome, policy, answer, waited, only }: Sources,
): LayerFacts {
  const descriptor = manifest.layers[i] as Descriptor // one of them
  const claimed = config.diffIds[i] as Digest // parseConfig: one a layer
  const unit = plan.get(descriptor) as Unit | Unplanned // of each layer
  const isTogether = togetherIn(plan, descriptor) !== undefined
  const unnamed = unnamedOf(manifest, descriptor, only ? waited : undefined)
  const lazy =
    'format' in unit
      ? { name: unit.format, unnamed }
      : { why: unit.why, ...(waited.has(descriptor) ? { small: true as const } : {}) }
  const { diffIds: tars, refuted, contested } = known[i] as KnownLayer // one a layer
  const proven = tars.some((each) => each === claimed)
  // what the agent has just failed at, it is not advised to do again
  const failed = proven || !outcome?.left.includes(descriptor.digest) ? undefined : whyLeft(descriptor, outcome)
  const format = formatHere(lazy, refuted, unusable.get(descriptor), failed, isTogether)
  const other = proven ? undefined : tars[0]
  if (other !== undefined) return { format, proven, believed: falseClaim(claimed, other) }
  const believed = contested.includes(claimed)
    ? CONTESTED
    : believedOf(policy, answer, unnamed === undefined && !isTogether)
  if (failed === undefined) return { format, proven, believed }
  if (typeof believed === 'string') {
    // those above it hang on it
    if (descriptor.digest !== outcome?.left[0]) return { format, proven, believed }
    return { format, proven, believed, unlisted: { why: `the agent could not list it (${failed})`, fix: PROVE } }
  }
  return { format, proven, believed: { why: `${believed.why} (it was tried to prove it: ${failed})`, fix: TRIED } }
}

/** Why the agent did not list a layer that it left. */
function whyLeft({ digest }: Descriptor, { left, why }: ListOutcome): string {
  return (digest === left[0] ? why : undefined) ?? 'a layer below it is not listed'
}

/**
 * What of a layer can be served here, as its manifest, the cache, its index and the agent's last attempt say.
 * @param together whether engines cannot pull it themselves
 */
function formatHere(
  manifest: LayerFacts['format'],
  refuted: string | undefined,
  bad: string | undefined,
  failed: string | undefined,
  together: boolean,
): LayerFacts['format'] {
  if (refuted !== undefined) return { why: `it is quarantined: ${refuted}`, fix: DISTRUST }
  if (bad !== undefined) return { why: `its index cannot be used (${bad})`, fix: UNUSABLE }
  if (failed !== undefined && together) return { why: `the agent could not list it (${failed})`, fix: TRIED }
  if (failed === undefined || 'name' in manifest) return manifest
  return { why: `${manifest.why}, and the agent could not list it (${failed})`, fix: TRIED }
}

/** As diffIdOf has it. */
function falseClaim(claimed: Digest, other: Digest): Unbelieved & { false: true } {
  const why = `the image claims DiffID ${claimed} for it, and its bytes have ${other}`
  return { why, fix: 'Find out who made the image, and have it built anew.', false: true }
}

/** @param newer whether newer engines find the layer without its DiffID */
function believedOf(policy: DiffIdPolicy, answer: true | string, newer: boolean): LayerFacts['believed'] {
  if (policy !== 'proven' && answer === true) return policy
  const { why, fix } = UNBELIEVED[policy === 'proven' || policy === 'signed' ? policy : 'narrowed']
  return { why, fix: newer ? `${fix} Or use a newer engine.` : fix }
}
