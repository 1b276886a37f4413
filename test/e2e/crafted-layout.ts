// OCI layouts of images made byte for byte, as no writer of ours would make them.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { digestOf, hex } from '../../src/image/digest.ts'
import { describeBytes, json, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST } from '../fake/image.ts'

export interface CraftedLayer {
  blob: Uint8Array
  mediaType?: string
  annotations?: Readonly<Record<string, string>>
  /** What the blob decompresses to. */
  tar: Uint8Array
}

export interface CraftedImage {
  layers: readonly CraftedLayer[]
  /** Beside rootfs, or instead of it. */
  config: object
  /** Instead of what a manifest has. */
  manifest?: object
}

/** @param images by tag @returns as `makeStore` wants it: a layout in `work` */
export async function writeCrafted(
  work: string,
  images: Readonly<Record<string, CraftedImage>>,
): Promise<{ layout: string; tags: string[] }> {
  const layout = join(work, 'layout')
  await mkdir(join(layout, 'blobs/sha256'), { recursive: true })
  const add = async (bytes: Uint8Array, mediaType: string) => {
    await writeFile(join(layout, 'blobs/sha256', hex(digestOf(bytes))), bytes)
    return describeBytes(bytes, mediaType)
  }
  const manifests: object[] = []
  for (const [tag, { layers, config, manifest }] of Object.entries(images)) {
    const rootfs = { type: 'layers', diff_ids: layers.map(({ tar }) => digestOf(tar)) }
    const described = []
    for (const { blob, mediaType = OCI_LAYER, annotations = {} } of layers) {
      described.push({ ...(await add(blob, mediaType)), annotations })
    }
    const document = {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: await add(json({ rootfs, ...config }), OCI_CONFIG),
      layers: described,
      ...manifest,
    }
    const annotations = { 'org.opencontainers.image.ref.name': tag }
    manifests.push({ ...(await add(json(document), OCI_MANIFEST)), annotations })
  }
  await writeFile(join(layout, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  await writeFile(join(layout, 'index.json'), json({ schemaVersion: 2, manifests }))
  return { layout, tags: Object.keys(images) }
}
