// What a layer is in plans of its image, for tests that have no image.
import type { Unit } from '../../src/format/format.ts'
import { planUnits } from '../../src/format/formats.ts'
import type { Descriptor } from '../../src/image/manifest.ts'

/** The unit that a layer is by itself. */
export function unitOf(descriptor: Descriptor): Unit {
  const planned = planUnits({ layers: [descriptor] }).get(descriptor)
  if (planned === undefined || 'why' in planned) throw new Error(planned?.why)
  return planned
}

/** Of each of an image's layers its format's name, or why it has none. */
export function formatsOf(layers: readonly Descriptor[]): string[] {
  return [...planUnits({ layers }).values()].map((each) => ('why' in each ? each.why : each.format))
}
