// Images that claim to be others, or show other files than their tars have.
import { cp, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { type Digest, digestOf, hex } from '../../src/image/digest.ts'
import { type Toc, withToc } from '../proof/liar.ts'

interface Named {
  digest: Digest
  size: number
}

/** Has the image of a layout claim other DiffIDs than its own. */
export async function claim(layout: string, manifest: Digest, diffIds: readonly Digest[]): Promise<void> {
  const old = await readJson(layout, manifest)
  const config = { ...(await readJson(layout, old.config.digest)), rootfs: { type: 'layers', diff_ids: diffIds } }
  await replace(layout, manifest, { ...old, config: { ...old.config, ...(await put(layout, config)) } })
}

/** Rewrites the table of contents of an image's only layer, an eStargz; the rest of its tar stays, and its config says the whole truth. */
export async function lie(layout: string, manifest: Digest, change: (toc: Toc) => void): Promise<void> {
  const old = await readJson(layout, manifest)
  const [layer] = old.layers
  const bytes = await readFile(blob(layout, layer.digest))
  const { descriptor, bytes: lying, diffId } = withToc({ ...layer, annotations: layer.annotations }, bytes, change)
  await writeFile(blob(layout, descriptor.digest), lying)
  const config = { ...(await readJson(layout, old.config.digest)), rootfs: { type: 'layers', diff_ids: [diffId] } }
  const layers = [{ ...layer, ...descriptor, annotations: { [TOC_DIGEST]: descriptor.annotations[TOC_DIGEST] } }]
  await replace(layout, manifest, { ...old, config: { ...old.config, ...(await put(layout, config)) }, layers })
}

/** A copy of a layout with one image, whose manifest is as Docker writes them: without a word of an index. */
export async function asSchema2(layout: string, to: string): Promise<void> {
  await cp(layout, to, { recursive: true })
  const index = JSON.parse(await readFile(join(to, 'index.json'), 'utf8')) // a fixture
  const old = await readJson(to, index.manifests[0].digest)
  const of = ({ digest, size }: Named, mediaType: string) => ({ mediaType, digest, size })
  const manifest = {
    schemaVersion: 2,
    mediaType: 'application/vnd.docker.distribution.manifest.v2+json',
    config: of(old.config, 'application/vnd.docker.container.image.v1+json'),
    layers: old.layers.map((each: Named) => of(each, 'application/vnd.docker.image.rootfs.diff.tar.gzip')),
  }
  await replace(to, index.manifests[0].digest, manifest)
}

const blob = (layout: string, digest: Digest) => join(layout, 'blobs/sha256', hex(digest))

/** Of our own making, or a fixture. */
async function readJson(layout: string, digest: Digest) {
  return JSON.parse(await readFile(blob(layout, digest), 'utf8'))
}

async function put(layout: string, value: object): Promise<Named> {
  const bytes = new TextEncoder().encode(JSON.stringify(value))
  await writeFile(blob(layout, digestOf(bytes)), bytes)
  return { digest: digestOf(bytes), size: bytes.length }
}

/** Puts another manifest where a layout names one. */
async function replace(layout: string, manifest: Digest, by: { mediaType?: string }): Promise<void> {
  const path = join(layout, 'index.json')
  const index = JSON.parse(await readFile(path, 'utf8')) // as above
  const changed = { ...(await put(layout, by)), ...(by.mediaType === undefined ? {} : { mediaType: by.mediaType }) }
  const manifests = index.manifests.map((each: Named) => (each.digest === manifest ? { ...each, ...changed } : each))
  await writeFile(path, JSON.stringify({ ...index, manifests }))
}
