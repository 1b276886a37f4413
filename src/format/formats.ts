// The formats that can be served lazily, and which of them an image's layers are in.
import { Failure } from '../errors.ts'
import type { Descriptor } from '../image/manifest.ts'
import { estargz } from './estargz/estargz.ts'
import type { Format, Planned, Unit } from './format.ts'
import { nydus } from './nydus/nydus.ts'
import { zstdChunked } from './zstd-chunked/zstd-chunked.ts'

/** In order of preference. */
export const FORMATS: readonly Format[] = [estargz, zstdChunked, nydus]

/** Why a layer has no lazy format: a sentence. `refused`: one that has it refuses the layer, which is no ordinary one. */
export interface Unplanned {
  why: string
  refused?: true
}

/** Of each layer of an image the unit that it is part of, or why there is none. */
export type Units = ReadonlyMap<Descriptor, Unit | Unplanned>

/** Decides by the manifest alone; reads no byte. A layer is part of one unit, and a unit has all of its layers. */
export function planUnits(manifest: Planned, formats: readonly Format[] = FORMATS): Units {
  const units = new Map<Descriptor, Unit>()
  const refusals = new Map<Descriptor, Unplanned>()
  const reasons = new Map(manifest.layers.map((each) => [each, [] as string[]]))
  for (const format of formats) {
    for (const [i, found] of format.plan(manifest).entries()) {
      const layer = manifest.layers[i] as Descriptor // one a layer
      if (typeof found === 'string') reasons.get(layer)?.push(found)
      else if ('refused' in found) refusals.set(layer, { why: found.refused, refused: true })
      else if (found.layers.length > 1 && found.identity !== undefined) {
        throw new TypeError(`${format.name}: engines look for single layers by an index`)
      } else if (found.layers.every((each) => (units.get(each) ?? found) === found)) units.set(layer, found)
      else reasons.get(layer)?.push(`another format has some of the layers that are one ${format.name} tree with it`)
    }
  }
  const planned = (layer: Descriptor, why: readonly string[]) =>
    units.get(layer) ?? refusals.get(layer) ?? { why: whyNone(layer, why) }
  return new Map([...reasons].map(([layer, why]) => [layer, planned(layer, why)]))
}

function whyNone({ mediaType }: Descriptor, reasons: readonly string[]): string {
  const said = [...new Set(reasons)].filter((each) => each !== '')
  return said.join('; ') || `its media type is ${JSON.stringify(mediaType)}, which no lazy format has`
}

/** @throws Failure unsupported */
export function formatNamed(name: string, formats: readonly Format[] = FORMATS): Format {
  const format = formats.find((each) => each.name === name)
  if (format) return format
  throw Failure.unsupported(`${JSON.stringify(name)} is no known format`)
}

/** What to tell the owner of an image that has no lazy format. */
export const HOW_TO_CONVERT =
  'Convert the image to eStargz, zstd:chunked or nydus (for example with nerdctl image convert --estargz --oci) and push it again.'
