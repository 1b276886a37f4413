// The formats that can be served lazily, in order of preference.
import { Failure } from '../errors.ts'
import { estargz } from './estargz.ts'
import type { Format, Layer } from './format.ts'
import { tar } from './tar.ts'

export const FORMATS: readonly Format[] = [estargz]

/** The format of a layer, or why it has none: a sentence for each format. */
export type Choice = { format: Format } | { reasons: readonly string[] }

/** Decides by the manifest alone; reads no byte. */
export function chooseFormat(layer: Layer): Choice {
  const reasons: string[] = []
  for (const format of FORMATS) {
    const detected = format.detect(layer)
    if (detected === true) return { format }
    reasons.push(detected)
  }
  return { reasons }
}

/** Those, and the tar itself, which a layer is once all of it was read. @throws Failure unsupported */
export function formatNamed(name: string): Format {
  const format = [...FORMATS, tar].find((each) => each.name === name)
  if (format) return format
  throw Failure.unsupported(`${JSON.stringify(name)} is no known format`)
}

/** What to tell the owner of an image that has no lazy format. */
export const HOW_TO_CONVERT =
  'Convert the image to eStargz (for example with nerdctl image convert --estargz --oci) and push it again.'
