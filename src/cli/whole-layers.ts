// What commands that show a whole image do about layers that are not lazy.

import { log } from '../agent/log.ts'
import type { Values } from '../agent/values.ts'
import { referenceText } from '../image/reference.ts'
import { type BeforeWhole, refuseWhole } from '../layer/all-layers.ts'
import { count, sizeText } from './output.ts'

/** Says in one line what is fetched whole and why, or refuses it, as --require-lazy asks. */
export function beforeWhole(values: Values): BeforeWhole {
  return values['require-lazy'] === true ? refuseWhole : tellWhole
}

const tellWhole: BeforeWhole = ({ reference, manifest }, eager) => {
  const bytes = eager.reduce((sum, { descriptor }) => sum + descriptor.size, 0)
  const of = `${eager.length} of ${count(manifest.layers.length, 'layer')}`
  const why = [...new Set(eager.map((each) => each.why))].join('; ')
  log(
    `${referenceText(reference)}: ${of} ${eager.length === 1 ? 'is' : 'are'} fetched whole, ${sizeText(bytes)}: ${why}`,
  )
}
