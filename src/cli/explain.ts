// lazylayer explain IMAGE: a line a layer: through which door engines get it, under what name, by which rung, and why it is pulled.

import { resolve } from 'node:path'
import { places } from '../agent/agent-places.ts'
import { type Belief, beliefOf, diffIdTrust } from '../agent/diff-id-trust.ts'
import { log } from '../agent/log.ts'
import { openRegistries, platformOf } from '../agent/open-registries.ts'
import type { DiffIds } from '../agent/socket.ts'
import { text, texts, type Values } from '../agent/values.ts'
import { type EnginesHere, findEngines } from '../engines/here.ts'
import { ERAS } from '../engines/versions.ts'
import { describe, Failure } from '../errors.ts'
import { buildKitIndex } from '../format/engine-index.ts'
import type { Unit } from '../format/format.ts'
import { planUnits, type Units, type Unplanned } from '../format/formats.ts'
import { type Descriptor, type Platform, platformText } from '../image/manifest.ts'
import { parseReference, type Reference, referenceText } from '../image/reference.ts'
import { companion, placeOf, type ResolvedImage, sourceOf } from '../layer/image.ts'
import { openNative } from '../mount/no-addon.ts'
import { systemPlaces } from '../registry/places.ts'
import type { Registries } from '../registry/registries.ts'
import { DIFF_ID_POLICIES } from '../stores/diff-id-policy.ts'
import { waitedFor } from '../stores/read-whole.ts'
import { togetherIn } from '../stores/together.ts'
import { type AgentHere, agentHere } from './explain/agent-here.ts'
import { clientWays, storeWays } from './explain/clients.ts'
import { factsOf } from './explain/facts.ts'
import { readIndexes } from './explain/indexes.ts'
import { type KnownLayer, knownOf, openKnown } from './explain/known.ts'
import type { LayerFacts, Ways } from './explain/layer.ts'
import { type Report, type ReportedLayer, reportText } from './explain/report.ts'
import { NEVER, waysOfImage } from './explain/together.ts'
import type { Invocation } from './flags.ts'
import { printJson } from './output.ts'
import { withoutLayers } from './setup/changes.ts'
import { readersOf } from './setup/crio.ts'
import { storageConf } from './setup/plan.ts'
import { untoldHere } from './told.ts'
import { tryRungs } from './trial.ts'

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
    const isHere = (descriptor: Descriptor) =>
      (known[manifest.layers.indexOf(descriptor)] as KnownLayer).diffIds.length > 0
    const waited = waitedFor(manifest, plan, () => only, isHere)
    const facts = factsOf(image, { plan, known, unusable, outcome, policy, answer, waited, only })
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
      clients: [
        ...clientWays({
          lazy: facts.filter(({ format }) => 'name' in format).length,
          layers: facts.length,
          bound: facts.filter(({ format }, i) => {
            return 'name' in format && buildKitIndex(manifest.layers[i] as Descriptor) !== undefined // one a layer
          }).length,
          refused: refusedOf(manifest.layers, plan),
          together: manifest.layers.some(isTogether),
        }),
        ...storeWays(
          layers.map(({ ways }) => ways),
          Object.fromEntries(here.found.map(({ engine, era }) => [engine, era])),
        ),
      ],
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

/** Whether the agent would read its index: what was judged was read. */
const isUnread = ({ diffIds, refuted }: KnownLayer) => diffIds.length === 0 && refuted === undefined

/** Where an image's blobs and indexes are. */
function reach(
  registries: Registries,
  reference: Reference,
  platform: Platform,
): Pick<ResolvedImage, 'repository' | 'blob' | 'sizeOf' | 'companion'> {
  const source = registries.source(reference)
  return {
    repository: placeOf(reference).repository,
    blob: (descriptor) => source.blob(descriptor),
    sizeOf: (digest, signal) => source.sizeOf(digest, signal ? { signal } : {}),
    companion: (suffix, signal) => companion((each) => registries.source(each), reference, platform, suffix, signal),
  }
}

/** Why nobody can be given one of these layers; undefined: they can all be served. */
function refusedOf(layers: readonly Descriptor[], plan: Units): string | undefined {
  for (const each of layers) {
    const unit = plan.get(each)
    if (unit !== undefined && 'why' in unit && unit.refused) return unit.why
  }
  return undefined
}

function isServed(ways: Ways): boolean {
  return ERAS.some((era) => ways[era].door !== undefined)
}
