// An image in an OCI layout: a folder with index.json and blobs/sha256/.
import { join } from 'node:path'
import { Failure } from '../errors.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import {
  choosePlatform,
  type Descriptor,
  type ImageIndex,
  MANIFEST_MAX_BYTES,
  type Manifest,
  type Platform,
  parseManifest,
} from '../image/manifest.ts'
import { type LayoutReference, referenceText } from '../image/reference.ts'
import { readText } from './file.ts'
import { LayoutBlob, sizeOfBlob } from './layout-blob.ts'
import { type Documents, type Image, isIndex, type ResolveOptions, resolveImage, resolveManifest } from './manifests.ts'
import type { ImageSource, StoredBlob } from './source.ts'

/** The annotation that holds a tag (image layout specification). */
const REF_NAME = 'org.opencontainers.image.ref.name'
const TAGS_SHOWN = 20

/** Reads `index.json` anew at each resolution; keeps blobs' files open until it is closed. */
export class LayoutSource implements ImageSource {
  readonly #reference: LayoutReference
  readonly #blobs = new Map<string, LayoutBlob>()

  constructor(reference: LayoutReference) {
    this.#reference = reference
  }

  async resolve(platform: Platform, options: ResolveOptions = {}): Promise<Image> {
    return await resolveImage(this.#reference, this.#documents(platform), platform, options)
  }

  async manifest(platform: Platform, options: { signal?: AbortSignal } = {}): Promise<Manifest> {
    return (await resolveManifest(this.#reference, this.#documents(platform), platform, options)).manifest
  }

  #documents(platform: Platform): Documents {
    const read = async (descriptor: Descriptor, signal: AbortSignal | undefined): Promise<Uint8Array> =>
      await this.#open(descriptor).read({ start: 0, end: descriptor.size }, signal ? { signal } : {})
    const root = async (signal: AbortSignal | undefined) => {
      const descriptor = await this.#root(platform)
      const what = `${referenceText(this.#reference)}: manifest ${descriptor.digest}`
      if (descriptor.size > MANIFEST_MAX_BYTES) throw Failure.limit(`${what} has ${descriptor.size} bytes`)
      const bytes = await read(descriptor, signal)
      const digest = digestOf(bytes)
      if (digest !== descriptor.digest) throw Failure.corrupt(`${what}: got ${digest}`)
      return { bytes, mediaType: descriptor.mediaType }
    }
    return { root, manifest: read, config: read }
  }

  blob(descriptor: Descriptor): StoredBlob {
    return this.#open(descriptor)
  }

  async sizeOf(digest: Digest): Promise<number | undefined> {
    return await sizeOfBlob(this.#reference.dir, digest)
  }

  /** Closes the files of all blobs. */
  async close(): Promise<void> {
    const blobs = [...this.#blobs.values()]
    this.#blobs.clear()
    await Promise.all(blobs.map((blob) => blob.close()))
  }

  #open(descriptor: Descriptor): LayoutBlob {
    const key = `${descriptor.digest} ${descriptor.size}`
    let blob = this.#blobs.get(key)
    if (blob === undefined) {
      blob = new LayoutBlob(this.#reference.dir, descriptor)
      this.#blobs.set(key, blob)
    }
    return blob
  }

  async #root(platform: Platform): Promise<Descriptor> {
    const { dir, tag, digest } = this.#reference
    const name = referenceText(this.#reference)
    const index = await readIndex(dir)
    if (digest !== undefined) {
      const listed = index.manifests.find((each) => each.digest === digest)
      if (listed) return listed
      throw Failure.missing(`${name}: index.json lists no such digest`)
    }
    const found =
      tag === undefined ? index.manifests : index.manifests.filter((each) => each.annotations[REF_NAME] === tag)
    const [first] = found
    if (first !== undefined && found.length === 1) return first
    const tags = index.manifests.flatMap((each) => each.annotations[REF_NAME] ?? []).slice(0, TAGS_SHOWN)
    const fix = `Its tags are: ${tags.map((each) => JSON.stringify(each)).join(', ') || 'none'}.`
    if (first === undefined) throw Failure.missing(`${name}: the layout has no such image`, { fix })
    // several images under one name differ in platform; several names need one
    const names = new Set(found.map((each) => each.annotations[REF_NAME]))
    if (names.size > 1)
      throw Failure.usage(`${name}: the layout holds several images`, { why: 'no tag was named', fix })
    return choosePlatform({ mediaType: index.mediaType, manifests: found }, platform, name)
  }
}

async function readIndex(dir: string): Promise<ImageIndex> {
  const marker = await readText(join(dir, 'oci-layout'))
  const text = await readText(join(dir, 'index.json'), MANIFEST_MAX_BYTES)
  if (marker === undefined || text === undefined) {
    throw Failure.missing(`${dir} is no OCI layout`, { why: 'it holds no oci-layout or no index.json' })
  }
  let version: unknown
  try {
    version = JSON.parse(marker)?.imageLayoutVersion
  } catch (cause) {
    throw Failure.corrupt(`${dir}/oci-layout is no JSON`, { cause })
  }
  if (version !== '1.0.0') throw Failure.unsupported(`${dir}: OCI layout version ${JSON.stringify(version)}`)
  const document = parseManifest(new TextEncoder().encode(text), `${dir}/index.json`)
  if (!isIndex(document)) throw Failure.corrupt(`${dir}/index.json is no index`)
  return document
}
