// Small images for tests, in memory.
import { type Content, memoryContent, type Shelf } from '../../src/build/registry.ts'
import { type Digest, digestOf } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json'
export const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip'

/** Bytes that tell their own offset apart, `length` of them. */
export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length)
  let state = seed
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    bytes[i] = state >>> 16
  }
  return bytes
}

/** A value as the bytes of its JSON. */
export function json(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}

/** The descriptor of bytes. */
export function describeBytes(bytes: Uint8Array, mediaType: string): Descriptor {
  return { mediaType, digest: digestOf(bytes), size: bytes.length, annotations: {} }
}

/** A shelf to which documents are added one by one. */
export class MemoryShelf implements Shelf {
  readonly manifests = new Map<string, Content>()
  readonly blobs = new Map<Digest, Content>()

  async manifest(_repository: string, version: string): Promise<Content | undefined> {
    return this.manifests.get(version)
  }

  async blob(_repository: string, digest: Digest): Promise<Content | undefined> {
    return this.blobs.get(digest)
  }

  addBlob(bytes: Uint8Array, mediaType = OCI_LAYER): Descriptor {
    const of = describeBytes(bytes, mediaType)
    this.blobs.set(of.digest, memoryContent(bytes))
    return of
  }

  addManifest(document: unknown, mediaType: string, ...tags: string[]): Descriptor {
    const bytes = document instanceof Uint8Array ? document : json(document)
    const of = describeBytes(bytes, mediaType)
    for (const version of [of.digest, ...tags]) this.manifests.set(version, memoryContent(bytes, mediaType))
    return of
  }

  /** An image with these layers; returns the manifest's descriptor. */
  addImage(layers: readonly Uint8Array[], options: { architecture?: string; tags?: string[] } = {}): Descriptor {
    const { architecture = 'amd64', tags = [] } = options
    const config = this.addBlob(
      json({ os: 'linux', architecture, rootfs: { type: 'layers', diff_ids: layers.map(digestOf) } }),
      OCI_CONFIG,
    )
    const document = {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config,
      layers: layers.map((each) => this.addBlob(each)),
    }
    return this.addManifest(document, OCI_MANIFEST, ...tags)
  }
}
