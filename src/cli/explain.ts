// lazylayer explain IMAGE: a line a layer: through which door engines get it, under what name, by which rung, and why it is pulled.

import { resolve } from 'node:path'
import { openRegistries, platformOf } from '../agent/agent.ts'
import { places } from '../agent/agent-places.ts'
import { type Belief, beliefOf, diffIdTrust } from '../agent/diff-id-trust.ts'
import { log } from '../agent/log.ts'
import type { DiffIds } from '../agent/socket.ts'
import { text, texts, type Values } from '../agent/values.ts'
import { type EnginesHere, findEngines } from '../engines/here.ts'
import { ERAS } from '../engines/versions.ts'
import { describe, Failure } from '../errors.ts'
import type { Unit } from '../format/format.ts'
import { HOW_TO_CONVERT, planUnits, type Unplanned } from '../format/formats.ts'
import type { Digest } from '../image/digest.ts'
import { type Descriptor, type Platform, platformText } from '../image/manifest.ts'
import { parseReference, type Reference, referenceText } from '../image/reference.ts'
import { companion, type ResolvedImage, sourceOf } from '../layer/image.ts'
import { openNative } from '../mount/no-addon.ts'
import { systemPlaces } from '../registry/places.ts'
import type { Registries } from '../registry/registries.ts'
import { DIFF_ID_POLICIES, type DiffIdPolicy } from '../stores/identity.ts'
import type { ListOutcome } from '../stores/outcome.ts'
import { waitedFor } from '../stores/read-whole.ts'
import { togetherIn } from '../stores/together.ts'
import { type AgentHere, agentHere } from './explain/agent-here.ts'
import { readIndexes } from './explain/indexes.ts'
import { type KnownLayer, knownOf, openKnown } from './explain/known.ts'
import type { LayerFacts, Unbelieved, Ways } from './explain/layer.ts'
import { type Report, type ReportedLayer, reportText } from './explain/report.ts'
import { NEVER, waysOfImage } from './explain/together.ts'
import { unnamedOf } from './explain/unnamed.ts'
import type { Invocation } from './flags.ts'
import { printJson } from './output.ts'
import { withoutLayers } from './setup/changes.ts'
import { readersOf } from './setup/crio.ts'
import { storageConf } from './setup/plan.ts'
import { untoldHere } from './told.ts'
import { tryRungs } from './trial.ts'

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

export async function explain({ positionals, values }: Invocation): Promise<number> {
  const reference = parseReference(positionals[0] as string) // the command declares it
  const registries = openRegistries(values, reference)
  try {
    const native = openNative()
    const agent = await agentHere(values, referenceText(reference))
    const { cache, outcome } = agent
    const diffid = diffidOf(values, agent)
    const { policy, only } = diffid
    const [image, trial, here] = await Promise.all([
      registries.source(reference).resolve(platformOf(values)),
      tryRungs(native, cache),
      findEngines(),
    ])
    const { answer, known } = await judge(image, beliefOf(policy, diffid.trust), registries, cache)
    const { manifest } = image
    const plan = planUnits(manifest)
    const isTogether = (descriptor: Descriptor) => togetherIn(plan, descriptor) !== undefined
    const unread = manifest.layers.filter((each, i) => isTogether(each) || isUnread(known[i] as KnownLayer))
    const source = { ...reach(registries, reference, platformOf(values)), manifest }
    const { unusable, together } = await readIndexes(unread, { plan, ...sourceOf(source) })
    const { diffIds } = image.config
    const isHere = (descriptor: Descriptor) =>
      (known[manifest.layers.indexOf(descriptor)] as KnownLayer).diffIds.length > 0
    const waited = waitedFor(manifest, plan, () => only, isHere)
    const facts = manifest.layers.map((descriptor, i): LayerFacts => {
      const unit = plan.get(descriptor) as Unit | Unplanned // of each layer
      const unnamed = unnamedOf(manifest, descriptor, only ? waited : undefined)
      const lazy =
        'format' in unit
          ? { name: unit.format, unnamed }
          : { why: unit.why, ...(waited.has(descriptor) ? { small: true as const } : {}) }
      const { diffIds: tars, refuted, contested } = known[i] as KnownLayer // one a layer
      const proven = tars.some((each) => each === diffIds[i])
      const bad = unusable.get(descriptor)
      // what the agent has just failed at, it is not advised to do again
      const failed = proven || !outcome?.left.includes(descriptor.digest) ? undefined : whyLeft(descriptor, outcome)
      const format = formatHere(lazy, refuted, bad, failed, isTogether(descriptor))
      const other = proven ? undefined : tars[0]
      if (other !== undefined) return { format, proven, believed: falseClaim(diffIds[i] as Digest, other) } // one a layer
      const isContested = contested.includes(diffIds[i] as Digest) // one a layer
      const believed = isContested
        ? CONTESTED
        : believedOf(policy, answer, unnamed === undefined && !isTogether(descriptor))
      if (failed === undefined) return { format, proven, believed }
      if (typeof believed === 'string') {
        // those above it hang on it
        if (descriptor.digest !== outcome?.left[0]) return { format, proven, believed }
        return { format, proven, believed, unlisted: { why: `the agent could not list it (${failed})`, fix: PROVE } }
      }
      return { format, proven, believed: { why: `${believed.why} (it was tried to prove it: ${failed})`, fix: TRIED } }
    })
    const rung = trial.rung ?? null
    const settings = systemPlaces()
    const untold = policy === 'guarded' ? await notesOf(text(values, 'root') ?? places().root, here) : []
    const readers = await readersOf(storageConf(settings), settings, here.found)
    const layers = waysOfImage(image, plan, together, facts, waited).map((ways, i): ReportedLayer => {
      const descriptor = manifest.layers[i] as Descriptor // one a layer, as facts are
      const { format } = facts[i] as LayerFacts
      const unit = plan.get(descriptor) as Unit | Unplanned // of each layer
      const name = 'name' in format ? format.name : null
      const version = name === null || 'why' in unit ? null : (unit.version ?? null)
      const { digest, size } = descriptor
      return { digest, size, format: name, version, rung: isServed(ways) ? rung : null, ways }
    })
    const never = layers.some(({ ways }, i) => isServed(ways) && isTogether(manifest.layers[i] as Descriptor))
      ? NEVER
      : []
    const report: Report = {
      reference: referenceText(reference),
      digest: image.digest,
      platform: platformText(image.config.platform),
      rung,
      why: trial.why ?? null,
      engines: here.found.map(({ engine, version, era }) => ({ engine, version: version.text, era })),
      silent: here.silent,
      diffid: { ...diffid, why: answer === true ? null : answer },
      notes: [...new Set(readers.flatMap((each) => withoutLayers(each, readers) ?? [])), ...untold, ...never],
      layers,
    }
    if (text(values, 'format') === 'json') printJson(report)
    else process.stdout.write(reportText(report))
    return 0
  } finally {
    await registries.close()
  }
}

/** As the flags say; without any, as the agent was told that runs here. */
function diffidOf(values: Values, { diffid }: AgentHere): DiffIds {
  const policy = DIFF_ID_POLICIES.find((each) => each === text(values, 'diffid')) // flags.ts lets nothing else in
  const trust = texts(values, 'trust')
  const only = values['diffid-only'] === true
  const given: DiffIds = { policy: policy ?? 'proven', trust, only }
  return policy === undefined && !only && trust.length === 0 ? (diffid ?? given) : given
}

/** Whether `serve --diffid` believes the image's DiffIDs, or why not, and what this machine knows of its layers. Changes nothing. */
async function judge(
  image: Pick<ResolvedImage, 'reference' | 'digest' | 'manifest' | 'manifestBytes'>,
  belief: Belief,
  registries: Registries,
  cache: string,
): Promise<{ answer: true | string; known: KnownLayer[] }> {
  const reader = await openKnown(cache, log)
  const trustsDiffIds = await diffIdTrust(belief, registries, {
    accepted: async (...of) => (await reader?.accepted(...of)) ?? false,
    keepAccepted: async () => {},
  })
  const [answer, known] = await Promise.all([trustsDiffIds(image), knownOf(image.manifest.layers, reader, log)])
  return { answer, known }
}

/** Which engines here the agent cannot keep images apart for. Never rejects for what settings are like. */
async function notesOf(root: string, here: EnginesHere): Promise<string[]> {
  try {
    const untold = await untoldHere(resolve(root), systemPlaces(), here)
    return untold.map(
      (why) => `${why}: images that it pulls are not kept apart, and serve --diffid guarded does not start`,
    )
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    return [`whether images are kept apart for the engines here is not known: ${describe(error)}`]
  }
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

/** Whether the agent would read its index: what was judged was read. */
const isUnread = ({ diffIds, refuted }: KnownLayer) => diffIds.length === 0 && refuted === undefined

/** Where an image's blobs and indexes are. */
function reach(
  registries: Registries,
  reference: Reference,
  platform: Platform,
): Pick<ResolvedImage, 'blob' | 'sizeOf' | 'companion'> {
  const source = registries.source(reference)
  return {
    blob: (descriptor) => source.blob(descriptor),
    sizeOf: (digest, signal) => source.sizeOf(digest, signal ? { signal } : {}),
    companion: (suffix, signal) => companion((each) => registries.source(each), reference, platform, suffix, signal),
  }
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

function isServed(ways: Ways): boolean {
  return ERAS.some((era) => ways[era].door !== undefined)
}
