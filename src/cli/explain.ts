// lazylayer explain IMAGE: a line a layer: through which door engines get it, under what name, by which rung, and why it is pulled.
import { chooseFormat } from '../format/formats.ts'
import { platformText } from '../image/manifest.ts'
import { parseReference, referenceText } from '../image/reference.ts'
import { openNative, openRegistries, places, platformOf, text } from './agent.ts'
import { ERAS } from './engines.ts'
import { findEngines } from './engines-here.ts'
import { type LayerFacts, type Ways, waysOf } from './explain/layer.ts'
import { type Report, type ReportedLayer, reportText } from './explain/report.ts'
import type { Invocation } from './flags.ts'
import { printJson } from './output.ts'
import { tryRungs } from './trial.ts'

export async function explain({ positionals, values }: Invocation): Promise<number> {
  const reference = parseReference(positionals[0] as string) // the command declares it
  const claimed = text(values, 'diffid') === 'claimed'
  const registries = openRegistries(values)
  try {
    const [image, trial, engines] = await Promise.all([
      registries.source(reference).resolve(platformOf(values)),
      tryRungs(openNative(), text(values, 'cache') ?? places().cache),
      findEngines(),
    ])
    const facts = image.manifest.layers.map((descriptor): LayerFacts => {
      const chosen = chooseFormat({ descriptor })
      const format = 'format' in chosen ? { name: chosen.format.name } : { why: chosen.reasons.join('; ') }
      return { format, proven: false, claimed } // nothing proves DiffIDs yet
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

function isServed(ways: Ways): boolean {
  return ERAS.some((era) => ways[era].door !== undefined)
}
