// The sample images, found through LAZYLAYER_SAMPLES: the folder that holds `samples/` and `images/`.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Descriptor, parseManifest } from '../../src/image/manifest.ts'
import type { Line } from './listing.ts'

export const SAMPLES = process.env.LAZYLAYER_SAMPLES

/** Bootstraps and blobs of nydus, without an image around them, of layer 1. */
export const BARE = [
  'v5-lz4_block-blake3',
  'v5-none-blake3',
  'v5-zstd-prefetch',
  'v5-zstd-sha256',
  'v6-none-blake3',
  'v6-zstd-prefetch',
  'v6-zstd-sha256',
]

export interface SampleLayer {
  descriptor: Descriptor
  bytes: Uint8Array
  path: string
}

/** The layers of the image `tag` in the layout `dir` (both below SAMPLES), the lowest first. */
export function sampleLayers(dir: string, tag: string): SampleLayer[] {
  const root = join(SAMPLES as string, dir)
  const at = (digest: string) => join(root, 'blobs', 'sha256', digest.slice('sha256:'.length))
  const index = JSON.parse(readFileSync(join(root, 'index.json'), 'utf8')) as {
    manifests: { digest: string; annotations?: Record<string, string> }[]
  }
  const found = index.manifests.find((each) => each.annotations?.['org.opencontainers.image.ref.name'] === tag)
  if (!found) throw new Error(`${root} has no ${tag}`)
  const manifest = parseManifest(readFileSync(at(found.digest)), tag)
  if (!('layers' in manifest)) throw new Error(`${tag} is an index`)
  return manifest.layers.map((descriptor) => ({
    descriptor,
    bytes: new Uint8Array(readFileSync(at(descriptor.digest))),
    path: at(descriptor.digest),
  }))
}

/** Sorted by path. */
export function expected(layer: number): Line[] {
  return readFileSync(join(SAMPLES as string, 'samples', 'expected', `layer${layer + 1}.jsonl`), 'utf8')
    .trim()
    .split('\n')
    .map((line): Line => JSON.parse(line))
    .sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)))
}
