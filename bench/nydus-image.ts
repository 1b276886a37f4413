// A tree as a nydus image (RAFS v6, zstd, blake3), made by nydus-image and laid out as converters do: one blob, and a bootstrap layer.
import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { type Digest, digestOf, hex } from '../src/image/digest.ts'
import { hostPlatform } from '../src/image/manifest.ts'
import { nydusdProgram } from './nydusd.ts'

const run = promisify(execFile)

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'

export interface NydusSource {
  source: string
  /** For the OCI layout; made. */
  dir: string
  tag: string
}

interface Layer {
  mediaType: string
  digest: Digest
  size: number
  annotations: Record<string, string>
}

/** By the program nydus-image beside nydusd. @throws what it says */
export async function writeNydusImage({ source, dir, tag }: NydusSource): Promise<void> {
  const making = join(dir, 'making')
  const parts = { blobs: join(making, 'blobs'), image: join(making, 'image') }
  for (const each of Object.values(parts)) await mkdir(each, { recursive: true })
  const tool = join(dirname(nydusdProgram()), 'nydus-image')
  const bootstrap = join(parts.image, 'image.boot')
  await run(tool, ['create', '--log-level', 'error', '--blob-dir', parts.blobs, '--bootstrap', bootstrap, source])
  await run('tar', ['-czf', join(making, 'bootstrap.tar.gz'), '-C', making, 'image/image.boot'])

  const blobs = join(dir, 'blobs', 'sha256')
  await mkdir(blobs, { recursive: true })
  const put = async (bytes: Uint8Array): Promise<{ digest: Digest; size: number }> => {
    const digest = digestOf(bytes)
    await writeFile(join(blobs, hex(digest)), bytes)
    return { digest, size: bytes.length }
  }
  const layers: Layer[] = []
  for (const name of await readdir(parts.blobs)) {
    layers.push({
      mediaType: 'application/vnd.oci.image.layer.nydus.blob.v1',
      ...(await put(await readFile(join(parts.blobs, name)))),
      annotations: { 'containerd.io/snapshot/nydus-blob': 'true' },
    })
  }
  const targz = await readFile(join(making, 'bootstrap.tar.gz'))
  const diffIds = [...layers.map(({ digest }) => digest), digestOf(gunzipSync(targz))]
  layers.push({
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    ...(await put(targz)),
    annotations: { 'containerd.io/snapshot/nydus-bootstrap': 'true', 'containerd.io/snapshot/nydus-fs-version': '6' },
  })
  const json = (value: unknown) => put(new TextEncoder().encode(JSON.stringify(value)))
  const config = await json({ ...hostPlatform(), config: {}, rootfs: { type: 'layers', diff_ids: diffIds } })
  const manifest = await json({
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
    layers,
  })
  const annotations = { 'org.opencontainers.image.ref.name': tag }
  const index = { schemaVersion: 2, manifests: [{ mediaType: MANIFEST, ...manifest, annotations }] }
  await writeFile(join(dir, 'index.json'), JSON.stringify(index))
  await writeFile(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  await rm(making, { recursive: true })
}
