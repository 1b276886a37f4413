// Writes images into an OCI layout (image-spec image-layout.md): oci-layout, index.json, blobs/sha256/….
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../errors.ts'
import { TAR_SIZE, TOC_DIGEST } from '../format/estargz/estargz.ts'
import { type Digest, digestOf, hex } from '../image/digest.ts'
import { type Descriptor, hostPlatform, type Platform } from '../image/manifest.ts'
import { type EstargzOptions, writeEstargz } from './estargz.ts'
import type { Written } from './member-writer.ts'
import type { SourceEntry } from './source-entry.ts'
import { writeTarGz } from './targz.ts'

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG = 'application/vnd.oci.image.config.v1+json'
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip'
const INDEX = 'application/vnd.oci.image.index.v1+json'
const REF_NAME = 'org.opencontainers.image.ref.name'

/** A layer to be made: lazily servable, or as plain as most are. */
export type LayerSource =
  | { kind: 'estargz'; entries: Entries; options?: EstargzOptions }
  | { kind: 'gzip'; entries: Entries }
type Entries = Iterable<SourceEntry> | AsyncIterable<SourceEntry>

export interface ImageSource {
  /** The layout's folder; made when missing, another image of the same tag is replaced. */
  dir: string
  tag: string
  layers: readonly LayerSource[]
  /** `config` of the image configuration: Cmd, Env, Entrypoint, … */
  config?: Readonly<Record<string, unknown>>
  /** Default: this machine's. */
  platform?: Platform
}

export interface WrittenImage {
  manifestDigest: Digest
  config: Descriptor
  layers: readonly Descriptor[]
  diffIds: readonly Digest[]
}

/** @throws Failure what the layers' writers throw; system */
export async function writeImage({
  dir,
  tag,
  layers,
  config = {},
  platform = hostPlatform(),
}: ImageSource): Promise<WrittenImage> {
  const blobs = join(dir, 'blobs', 'sha256')
  await mkdir(blobs, { recursive: true })
  const descriptors: Descriptor[] = []
  const diffIds: Digest[] = []
  for (const layer of layers) {
    const unnamed = join(blobs, `.making-${process.pid}-${descriptors.length}`)
    const { written, annotations } = await writeLayer(layer, unnamed)
    await rename(unnamed, join(blobs, hex(written.digest)))
    descriptors.push({ mediaType: LAYER, digest: written.digest, size: written.size, annotations })
    diffIds.push(written.diffId)
  }
  const putJson = async (mediaType: string, value: unknown): Promise<Descriptor> => {
    const bytes = new TextEncoder().encode(JSON.stringify(value))
    const digest = digestOf(bytes)
    await writeFile(join(blobs, hex(digest)), bytes)
    return { mediaType, digest, size: bytes.length, annotations: {} }
  }
  const configDescriptor = await putJson(CONFIG, {
    ...platform,
    config,
    rootfs: { type: 'layers', diff_ids: diffIds },
    history: descriptors.map(() => ({ created_by: 'lazylayer' })),
  })
  const manifest = await putJson(MANIFEST, {
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: withoutEmpty(configDescriptor),
    layers: descriptors.map(withoutEmpty),
  })
  await addToIndex(dir, tag, manifest)
  return { manifestDigest: manifest.digest, config: configDescriptor, layers: descriptors, diffIds }
}

async function writeLayer(
  layer: LayerSource,
  path: string,
): Promise<{ written: Written; annotations: Record<string, string> }> {
  if (layer.kind === 'gzip') return { written: await writeTarGz(layer.entries, path), annotations: {} }
  const written = await writeEstargz(layer.entries, path, layer.options)
  return { written, annotations: { [TOC_DIGEST]: written.tocDigest, [TAR_SIZE]: `${written.uncompressedSize}` } }
}

function withoutEmpty({ annotations, ...rest }: Descriptor): object {
  return Object.keys(annotations).length === 0 ? rest : { ...rest, annotations }
}

async function addToIndex(dir: string, tag: string, manifest: Descriptor): Promise<void> {
  const path = join(dir, 'index.json')
  const others = (await manifestsOf(path)).filter((each) => each.annotations?.[REF_NAME] !== tag)
  const index = {
    schemaVersion: 2,
    mediaType: INDEX,
    manifests: [...others, { ...manifest, annotations: { [REF_NAME]: tag } }],
  }
  await writeFile(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  const unnamed = `${path}.making-${process.pid}`
  try {
    await writeFile(unnamed, JSON.stringify(index))
    await rename(unnamed, path)
  } catch (cause) {
    await rm(unnamed, { force: true })
    throw Failure.system(`cannot write ${path}`, { cause })
  }
}

async function manifestsOf(path: string): Promise<{ annotations?: Record<string, string> }[]> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw Failure.system(`cannot read ${path}`, { cause })
  }
  const { manifests } = JSON.parse(text) as { manifests?: unknown }
  return Array.isArray(manifests) ? manifests : []
}
