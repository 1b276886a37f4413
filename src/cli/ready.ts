// What `serve` prints when engines may look.
import { join } from 'node:path'
import type { StoreSettings } from '../agent/serve-store.ts'
import type { Rung } from '../mount/ladder.ts'
import { AdditionalImageStore } from '../stores/image-store.ts'
import { AdditionalLayerStore } from '../stores/layer-store.ts'

/**
 * Two lines: the first is what scripts wait for, the second says where engines are told of the two stores of `root`.
 */
export function readyText(
  root: string,
  rung: Rung,
  { diffId, trust, byIndex }: Pick<StoreSettings, 'diffId' | 'trust' | 'byIndex'>,
): string {
  const layers = join(root, AdditionalLayerStore.DIRECTORY)
  const images = join(root, AdditionalImageStore.DIRECTORY)
  return [
    `serving ${layers} (${[`${rung}, --diffid ${diffId}`, ...trust.map((each) => `--trust ${each}`), ...(byIndex ? [] : ['--diffid-only'])].join(' ')})\n`,
    `for storage.conf: additionalimagestores = ["${images}"], up to Podman 5.1 (no auth helper) also `,
    `additionallayerstores = ["${layers}:ref"]; lazylayer setup writes it\n`,
  ].join('')
}
