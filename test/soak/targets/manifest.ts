// Manifests and indexes of images.
import { parseManifest } from '../../../src/image/manifest.ts'
import type { Target } from '../target.ts'
import { attempt } from '../well-formed.ts'

const digest = `sha256:${'ab'.repeat(32)}`
const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size: 1000, annotations: { a: 'b' } }
const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest, size: 100 }
const platform = { os: 'linux', architecture: 'arm64', variant: 'v8' }

const text = (value: object) => new TextEncoder().encode(JSON.stringify(value))

export const manifest: Target = {
  name: 'manifest',
  seeds: [
    text({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config, layers: [layer, layer] }),
    text({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [{ ...layer, mediaType: 'application/vnd.oci.image.manifest.v1+json', platform }],
    }),
  ],
  run: (bytes) => attempt(() => parseManifest(bytes, 'image')),
}
