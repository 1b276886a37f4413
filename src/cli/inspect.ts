// lazylayer inspect IMAGE

import { printable } from '../agent/log.ts'
import { openRegistries, platformOf } from '../agent/open-registries.ts'
import { text } from '../agent/values.ts'
import type { Unit } from '../format/format.ts'
import { planUnits, type Unplanned } from '../format/formats.ts'
import { type Descriptor, platformText } from '../image/manifest.ts'
import { parseReference, referenceText } from '../image/reference.ts'
import type { Invocation } from './flags.ts'
import { formatText, printJson, shortDigest, sizeText, table } from './output.ts'

export async function inspect({ positionals, values }: Invocation): Promise<number> {
  const reference = parseReference(positionals[0] as string) // the command declares it
  const registries = openRegistries(values, reference)
  try {
    const image = await registries.source(reference).resolve(platformOf(values))
    const plan = planUnits(image.manifest)
    const layers = image.manifest.layers.map((descriptor, i) => {
      const unit = plan.get(descriptor) as Unit | Unplanned // of each layer
      const lazy = 'format' in unit
      return {
        digest: descriptor.digest,
        size: descriptor.size,
        mediaType: descriptor.mediaType,
        diffId: image.config.diffIds[i],
        lazy,
        format: lazy ? unit.format : null,
        version: lazy ? (unit.version ?? null) : null,
        index: lazy ? (unit.identity ?? null) : null,
        shownBy: lazy ? unit.shown.digest : null,
        why: lazy ? null : unit.why,
      }
    })
    if (text(values, 'format') === 'json') {
      printJson({
        reference: referenceText(reference),
        digest: image.digest,
        platform: platformText(image.config.platform),
        layers,
      })
      return 0
    }
    const platform = printable(platformText(image.config.platform))
    process.stdout.write(`${referenceText(reference)}\n${image.digest}, ${platform}\n\n`)
    process.stdout.write(
      table(
        ['LAYER', 'SIZE', 'LAZY', 'FORMAT'],
        image.manifest.layers.map((descriptor) => rowOf(descriptor, plan.get(descriptor) as Unit | Unplanned)),
      ),
    )
    return 0
  } finally {
    await registries.close()
  }
}

function rowOf(descriptor: Descriptor, unit: Unit | Unplanned): string[] {
  const row = [shortDigest(descriptor.digest), sizeText(descriptor.size)]
  return 'why' in unit ? [...row, 'no', printable(`(${unit.why})`)] : [...row, 'yes', placeText(descriptor, unit)]
}

/** Of several layers with one tree, one has it, and the others have what its files contain. */
function placeText(descriptor: Descriptor, unit: Unit): string {
  const name = formatText(unit)
  if (unit.layers.length === 1) return name
  if (descriptor === unit.shown) return `${name} (the tree of ${unit.layers.length} layers)`
  return `${name} (part of the tree of ${shortDigest(unit.shown.digest)})`
}
