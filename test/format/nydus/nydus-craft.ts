// Layers of nydus images, made of bootstraps.
import { gzipSync } from 'node:zlib'
import { endOfArchive } from '../../../src/build/tar.ts'
import type { Source, Unit } from '../../../src/format/format.ts'
import { planUnits } from '../../../src/format/formats.ts'
import { type Digest, digestOf } from '../../../src/image/digest.ts'
import type { Descriptor } from '../../../src/image/manifest.ts'
import { MemoryBlob } from '../memory-blob.ts'
import { member } from '../tar/tar-craft.ts'

export const BLOB_TYPE = 'application/vnd.oci.image.layer.nydus.blob.v1'
export const GZIP_TYPE = 'application/vnd.oci.image.layer.v1.tar+gzip'
export const BOOTSTRAP = 'containerd.io/snapshot/nydus-bootstrap'
export const REFERS_TO = 'containerd.io/snapshot/nydus-ref'

/** The layer that has these files in `image/`. */
export function bootstrapLayer(files: Record<string, Uint8Array>): MemoryBlob {
  const members = Object.entries(files).map(([name, bytes]) => member({ name: `image/${name}` }, bytes))
  return new MemoryBlob(new Uint8Array(gzipSync(Buffer.concat([...members, endOfArchive()]))))
}

export function blobLayer({ digest, size }: { digest: Digest; size: number }, annotations = {}): Descriptor {
  return { mediaType: BLOB_TYPE, digest, size, annotations }
}

export function topLayer({ digest, size }: { digest: Digest; size: number }, annotations = {}): Descriptor {
  return { mediaType: GZIP_TYPE, digest, size, annotations }
}

/** An image of these blobs and a bootstrap layer, and where its layers are read from. */
export interface NydusImage {
  unit: Unit
  source: Source
  /** Blobs by their digests, those that the image does not have as layers among them. */
  blobs: ReadonlyMap<Digest, MemoryBlob>
}

/** @param others blobs that are in the repository, but no layers */
export function nydusImage(
  top: MemoryBlob,
  blobs: readonly MemoryBlob[],
  others: readonly MemoryBlob[] = [],
): NydusImage {
  const layers = [...blobs.map((each) => blobLayer(each)), topLayer(top, { [BOOTSTRAP]: 'true' })]
  const unit = planUnits({ layers }).get(layers[0] as Descriptor)
  if (unit === undefined || 'why' in unit) throw new Error(unit?.why)
  const all = new Map([...blobs, ...others, top].map((each) => [each.digest, each]))
  return { unit, source: sourceOver(all), blobs: all }
}

export function sourceOver(blobs: ReadonlyMap<Digest, MemoryBlob>): Source {
  const blob: Source['blob'] = ({ digest, size }) => {
    const found = blobs.get(digest)
    if (found === undefined || found.size !== size) throw new Error(`no blob ${digest} of ${size} bytes`)
    return found
  }
  return {
    repository: 'registry.example.com/app',
    blob,
    sizeOf: async (digest) => blobs.get(digest)?.size,
    companion: async () => undefined,
  }
}

export const SOME_BLOB = new MemoryBlob(new TextEncoder().encode('x'.repeat(100_000)))
export const someDigest = (text: string): Digest => digestOf(new TextEncoder().encode(text))
