// A layer's image in memory, for what looks through all of it.
import type { OpenLayer } from './layer.ts'

/** All of it, hashed just now. @throws Failure as OpenLayer.openImage */
export async function readImage(layer: Pick<OpenLayer, 'openImage'>): Promise<Uint8Array> {
  const image = await layer.openImage()
  try {
    return new Uint8Array(await image.readFile())
  } finally {
    await image.close()
  }
}
