// Whether a lazy layer may bear the chain ID that a client knows it by: the client compares nothing itself. Declared here, since who decides
// is not known to this folder.
import type { ResolvedImage } from '../layer/image.ts'
import type { LayerLease, OpenLayer } from '../layer/layer.ts'
import type { LazyLayer } from './snapshot.ts'

export interface LayerNames {
  /**
   * An image comes: what it says of its layers is compared with what other images say. Resolves when that is decided, as far as it is soon.
   * @param trees of its lazy layers, by their places, when they are open; asked for at once
   */
  meet(image: ResolvedImage, trees: () => Promise<readonly (Pick<OpenLayer, 'tree'> | undefined)[]>): Promise<void>
  /**
   * A layer is to be shown under its DiffID and those below.
   * @param open opens one of the image's layers
   * @returns why it may not; undefined: it may, and is known to be shown
   */
  take(
    image: ResolvedImage,
    place: number,
    layer: OpenLayer,
    open: (place: number) => Promise<LayerLease>,
  ): Promise<string | undefined>
  /** A layer of an earlier life is shown again. Never rejects. */
  restore(image: ResolvedImage, place: number, layer: OpenLayer): Promise<void>
  /** Why a layer that is shown must not be given to containers any more; undefined: it may. */
  whyHidden(layer: LazyLayer): string | undefined
  /** Whether a layer is given to containers only because it is believed, and somebody may say otherwise. */
  isBelieved(layer: LazyLayer): boolean
  /** Has such a layer be read whole at once; resolves when it is, or cannot be soon. Never rejects. */
  prove(layer: LazyLayer): Promise<void>
}
