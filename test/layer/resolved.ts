// Images as if they had been resolved, of layers in memory.
import type { Digest } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import type { ResolvedImage } from '../../src/layer/image.ts'
import type { StoredBlob } from '../../src/registry/source.ts'
import type { Made } from '../format/pair.ts'
import { config, digest } from '../stores/store.ts'

export interface ImageOptions {
  origin?: string
  /** Default: one of the origin. */
  repository?: string
  diffIds?: readonly Digest[]
  mediaType?: string
}

/** An image of these layers, lowest first. */
export function imageOf(layers: readonly Made[], options: ImageOptions = {}): ResolvedImage {
  const {
    origin = 'registry.example.com',
    repository = `${origin}/app`,
    diffIds = layers.map((_, i) => digest(`tar ${i}`)),
  } = options
  const { mediaType = 'application/vnd.oci.image.manifest.v1+json' } = options
  const blobs = new Map(
    layers.map(({ descriptor, blob }) => [descriptor.digest, storedIn(origin, { descriptor, blob })]),
  )
  return {
    origin,
    reference: parseReference(`${origin}/app:1`),
    digest: digest('manifest'),
    manifest: { mediaType, config: config('config'), layers: layers.map((each) => each.descriptor) },
    config: { diffIds },
    blob: (of: Descriptor) => blobs.get(of.digest),
    repository,
    companion: async () => undefined,
  } as unknown as ResolvedImage // what opening layers uses of it
}

/** What a registry has of a layer; what is read whole counts as one range. */
function storedIn(origin: string, { descriptor, blob }: Made): StoredBlob {
  const { digest, size } = descriptor
  const read: StoredBlob['read'] = (range) => blob.read(range)
  return { digest, size, origin, read, stream: async (take) => take(await blob.read({ start: 0, end: size })) }
}
