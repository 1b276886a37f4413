// What a manifest says of its layers: which blobs, and by which indexes they are read. Pure.
import type { Units } from '../format/formats.ts'
import type { Digest } from '../image/digest.ts'
import type { Manifest } from '../image/manifest.ts'
import type { LazyLayer } from './snapshot.ts'

export interface SaidLayer {
  blob: Digest
  /** Undefined: it is to be unpacked. */
  index: Digest | undefined
}

/** The base first. */
export function saidLayers({ layers }: Pick<Manifest, 'layers'>, plan: Units): SaidLayer[] {
  return layers.map((descriptor) => {
    const unit = plan.get(descriptor)
    return { blob: descriptor.digest, index: unit === undefined || 'why' in unit ? undefined : unit.index }
  })
}

/** Whether an image means something else than what is shown. What was read whole is known without an index. */
export function isOther(shown: LazyLayer, said: SaidLayer | undefined): boolean {
  return shown.blob !== said?.blob || (shown.index !== undefined && shown.index !== said.index)
}
