// What engines take for the index of a layer, whether or not it is one: by that they look for it in stores, and call it and its image
// by that. The rule is containers/storage's (GetTOCDigest) and containers/image's, which reads no annotations in Docker's manifests.
import { type Digest, isDigest } from '../image/digest.ts'
import { type Descriptor, DOCKER_MANIFEST, type Manifest } from '../image/manifest.ts'
import { TOC_DIGEST } from './estargz/estargz.ts'
import { CONTAINERS_CHECKSUM } from './zstd-chunked/place.ts'

/** The index by which engines look for a layer of an image, whatever its media type is. Images with a layer that has two they refuse. */
export function engineIndex(
  { mediaType }: Pick<Manifest, 'mediaType'>,
  { annotations }: Pick<Descriptor, 'annotations'>,
): Digest | undefined {
  if (mediaType === DOCKER_MANIFEST) return undefined
  const [one, ...more] = [annotations[TOC_DIGEST], annotations[CONTAINERS_CHECKSUM]].filter(
    (each) => each !== undefined,
  )
  return more.length === 0 && isDigest(one) ? one : undefined
}

/** What BuildKit takes for it: it knows a layer by its DiffID and this together. */
export function buildKitIndex({ annotations }: Pick<Descriptor, 'annotations'>): Digest | undefined {
  const toc = annotations[TOC_DIGEST]
  return isDigest(toc) ? toc : undefined
}

/** Of a snapshot, by BuildKit: the blob of the layer. */
export const BUILDKIT_LAYER_DIGEST = 'containerd.io/snapshot/remote/stargz.digest'
