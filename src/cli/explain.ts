// lazylayer explain IMAGE: a line a layer: through which door engines get it, under what name, by which rung, and why it is pulled.
import { existsSync } from 'node:fs'
import { chooseFormat } from '../format/formats.ts'
import { type Descriptor, platformText } from '../image/manifest.ts'
import { parseReference, referenceText } from '../image/reference.ts'
import type { NativeModule } from '../mount/native.ts'
import type { Verdict } from '../mount/whole.ts'
import { Store } from '../store/store.ts'
import { log, openNative, openRegistries, places, platformOf, text } from './agent.ts'
import { ERAS } from './engines.ts'
import { findEngines } from './engines-here.ts'
import { type LayerFacts, type Ways, waysOf } from './explain/layer.ts'
import { type Report, type ReportedLayer, reportText } from './explain/report.ts'
import type { Invocation } from './flags.ts'
import { printJson } from './output.ts'
import { tryRungs } from './trial.ts'

/** For a layer whose index and tar differ; converting the same image again would not help. */
const DISTRUST =
  'Its index shows other files than its tar has, which no usual tool makes: find out who made it, and have it built anew.'

export async function explain({ positionals, values }: Invocation): Promise<number> {
  const reference = parseReference(positionals[0] as string) // the command declares it
  const claimed = text(values, 'diffid') === 'claimed'
  const registries = openRegistries(values)
  try {
    const native = openNative()
    const cache = text(values, 'cache') ?? places().cache
    const [image, trial, engines] = await Promise.all([
      registries.source(reference).resolve(platformOf(values)),
      tryRungs(native, cache),
      findEngines(),
    ])
    const verdicts = await verdictsIn(cache, native, image.manifest.layers)
    const facts = image.manifest.layers.map((descriptor, i): LayerFacts => {
      const chosen = chooseFormat({ descriptor })
      const lazy = 'format' in chosen ? { name: chosen.format.name } : { why: chosen.reasons.join('; ') }
      const known = verdicts[i] ?? []
      const proven = known.some((each) => each.verdict === 'proven' && each.diffId === image.config.diffIds[i])
      const refuted = known.find((each) => each.verdict === 'refuted')
      const format = refuted === undefined ? lazy : { why: `it is quarantined: ${refuted.why}`, fix: DISTRUST }
      return { format, proven, claimed }
    })
    const rung = trial.rung ?? null
    const layers = waysOf(facts).map((ways, i): ReportedLayer => {
      const descriptor = image.manifest.layers[i] as (typeof image.manifest.layers)[number] // one a layer, as facts are
      const format = (facts[i] as LayerFacts).format
      const name = 'name' in format ? format.name : null
      const { digest, size } = descriptor
      return { digest, size, format: name, rung: isServed(ways) ? rung : null, ways }
    })
    const report: Report = {
      reference: referenceText(reference),
      digest: image.digest,
      platform: platformText(image.config.platform),
      rung,
      why: trial.why ?? null,
      engines: engines.map(({ engine, version, era }) => ({ engine, version: version.text, era })),
      layers,
    }
    if (text(values, 'format') === 'json') printJson(report)
    else process.stdout.write(reportText(report))
    return 0
  } finally {
    await registries.close()
  }
}

/** What this machine knows of layers that it read whole; nothing where it has no cache. */
async function verdictsIn(cache: string, native: NativeModule, layers: readonly Descriptor[]): Promise<Verdict[][]> {
  if (!existsSync(cache)) return []
  const store = await Store.open(cache, native, log)
  try {
    return await Promise.all(layers.map(({ digest }) => store.proofs.about(digest)))
  } finally {
    await store.close()
  }
}

function isServed(ways: Ways): boolean {
  return ERAS.some((era) => ways[era].door !== undefined)
}
