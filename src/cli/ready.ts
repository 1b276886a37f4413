// What `serve` prints when engines may look.
import { join } from 'node:path'
import type { Rung } from '../mount/ladder.ts'
import type { DiffIdPolicy } from '../stores/identity.ts'
import { AdditionalImageStore } from '../stores/image-store.ts'
import { AdditionalLayerStore } from '../stores/layer-store.ts'

/**
 * Two lines: the first is what scripts wait for, the second says where engines are told of the two stores of `root`.
 * @param byIndex as StoreParts has it
 */
export function readyText(root: string, rung: Rung, diffId: DiffIdPolicy, byIndex: boolean): string {
  const layers = join(root, AdditionalLayerStore.DIRECTORY)
  const images = join(root, AdditionalImageStore.DIRECTORY)
  return [
    `serving ${layers} (${rung}, --diffid ${diffId}${byIndex ? '' : ' --diffid-only'})\n`,
    `for storage.conf: additionalimagestores = ["${images}"], up to Podman 5.1 (no auth helper) also `,
    `additionallayerstores = ["${layers}:ref"]; lazylayer setup writes it\n`,
  ].join('')
}
