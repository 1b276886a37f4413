// nydus images made on the spot: blobs of chunks as they are, and a bootstrap (RAFS v5) over them in a layer of its own.
import { createHash } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { type Digest, digestOf, hex } from '../../src/image/digest.ts'
import { type Descriptor, hostPlatform } from '../../src/image/manifest.ts'
import { S_IFDIR, S_IFREG } from '../../src/tree/entry.ts'
import { BOOTSTRAP, blobLayer, bootstrapLayer, topLayer } from '../format/nydus/nydus-craft.ts'
import { craft5, type Node5, type Record5 } from '../format/nydus/v5/rafs5-craft.ts'

/** One layer of an image, and its bytes. */
export interface MadeLayer {
  descriptor: Descriptor
  bytes: Uint8Array
  diffId: Digest
}

const CHUNK_BYTES = 1 << 20
/** Of a blob that is there anyway. */
const CUT_BYTES = 100
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG = 'application/vnd.oci.image.config.v1+json'

/**
 * The layers of a nydus image with these files: two blobs, which have every other file each, unless there are none; and the bootstrap.
 * @param more blobs that are there anyway: a file is cut out of the beginning of each
 */
export async function nydusLayers(
  entries: readonly SourceEntry[],
  more: readonly Uint8Array[] = [],
): Promise<MadeLayer[]> {
  const blobs = [new GrowingBlob(0, 'the first'), new GrowingBlob(1, 'the second')] as const
  let files = 0
  const root = await treeOf(entries, (content) => (files++ % 2 === 0 ? blobs[0] : blobs[1]).add(content))
  const own = files === 0 ? [] : blobs.map((each) => each.bytes)
  for (const [i, bytes] of more.entries()) {
    const size = Math.min(bytes.length, CUT_BYTES)
    const digest = createHash('sha256').update(bytes.subarray(0, size)).digest()
    root.children?.push({ name: `zz-cut-${i}`, chunks: [{ blob: own.length + i, size, digest }] })
  }
  const whole = [...own, ...more]
  const { bytes } = craft5({ root, chunkSize: CHUNK_BYTES, blobs: whole.map((each) => hex(digestOf(each))) })
  const top = bootstrapLayer({ 'image.boot': bytes })
  const stored = await top.read({ start: 0, end: top.size })
  const descriptor = topLayer(top, { [BOOTSTRAP]: 'true' })
  return [...whole.map(asBlob), { descriptor, bytes: stored, diffId: digestOf(gunzipSync(stored)) }]
}

/** Chunks, one behind the other. */
class GrowingBlob {
  readonly #number: number
  readonly #parts: Uint8Array[]
  #size: number
  #chunks = 0

  constructor(number: number, name: string) {
    this.#number = number
    const begin = Buffer.alloc(512, `${name}, which is no tar `)
    this.#parts = [begin]
    this.#size = begin.length
  }

  add(content: Uint8Array): Record5[] {
    const records: Record5[] = []
    for (let at = 0; at < content.length; at += CHUNK_BYTES) {
      const bytes = content.subarray(at, at + CHUNK_BYTES)
      const digest = createHash('sha256').update(bytes).digest()
      const place = { blob: this.#number, index: this.#chunks++, offset: this.#size, fileOffset: at }
      records.push({ ...place, size: bytes.length, digest })
      this.#parts.push(bytes)
      this.#size += bytes.length
    }
    return records
  }

  get bytes(): Uint8Array {
    return new Uint8Array(Buffer.concat(this.#parts))
  }
}

async function treeOf(
  entries: readonly SourceEntry[],
  put: (content: Uint8Array) => Record5[],
): Promise<Partial<Node5>> {
  const root = { name: '/', children: [] as Node5[] }
  for (const entry of entries) {
    const parts = entry.path.split('/').filter((each) => each !== '' && each !== '.')
    const name = parts.pop() ?? ''
    let at = root
    for (const each of parts) at = childOf(at, each)
    const { mode, uid, gid, target, type } = entry
    const owner = { ...(uid === undefined ? {} : { uid }), ...(gid === undefined ? {} : { gid }) }
    if (type === 'dir') Object.assign(childOf(at, name), owner, mode === undefined ? {} : { mode: S_IFDIR | mode })
    else if (type === 'symlink') at.children.push({ name, target: target ?? '' })
    else at.children.push({ name, ...owner, mode: S_IFREG | (mode ?? 0o644), chunks: put(await contentOf(entry)) })
  }
  sort(root)
  return root
}

type Folder = Node5 & { name: string; children: Node5[] }

function childOf(folder: { children: Node5[] }, name: string): Folder {
  const found = folder.children.find((each) => each.name === name)
  if (found !== undefined) return found as Folder // of our own making
  const made = { name, children: [] }
  folder.children.push(made)
  return made
}

/** As the format wants them. */
function sort({ children }: Node5): void {
  children?.sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)))
  for (const each of children ?? []) sort(each)
}

export async function contentOf({ content = new Uint8Array() }: SourceEntry): Promise<Uint8Array> {
  return 'file' in content ? new Uint8Array(await readFile(content.file)) : content
}

/** Any bytes, as a blob of a nydus image. */
export function asBlob(bytes: Uint8Array): MadeLayer {
  const digest = digestOf(bytes)
  return { descriptor: blobLayer({ digest, size: bytes.length }), bytes, diffId: digest }
}

/** Any tar, as an ordinary layer. */
export function asTarGz(tar: Uint8Array): MadeLayer {
  const bytes = new Uint8Array(gzipSync(tar))
  return { descriptor: topLayer({ digest: digestOf(bytes), size: bytes.length }), bytes, diffId: digestOf(tar) }
}

/** Writes an image of these layers into a layout, as `tag`. @returns the config's digest */
export async function writeLayers(
  dir: string,
  tag: string,
  layers: readonly MadeLayer[],
  { config = {}, mediaType = MANIFEST }: { config?: object; mediaType?: string } = {},
): Promise<Digest> {
  const blobs = join(dir, 'blobs/sha256')
  await mkdir(blobs, { recursive: true })
  const put = async (bytes: Uint8Array) => {
    await writeFile(join(blobs, hex(digestOf(bytes))), bytes)
    return { digest: digestOf(bytes), size: bytes.length }
  }
  const putJson = (value: object) => put(new TextEncoder().encode(JSON.stringify(value)))
  for (const { bytes } of layers) await put(bytes)
  const rootfs = { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) }
  const { os, architecture } = hostPlatform()
  const written = await putJson({ os, architecture, config, rootfs })
  const manifest = await putJson({
    schemaVersion: 2,
    mediaType,
    config: { mediaType: CONFIG, ...written },
    layers: layers.map(({ descriptor }) => descriptor),
  })
  const annotations = { 'org.opencontainers.image.ref.name': tag }
  const index = join(dir, 'index.json')
  const before = await readFile(index, 'utf8').then(JSON.parse, () => ({ manifests: [] })) // of our own making
  const manifests = [...before.manifests, { mediaType, ...manifest, annotations }]
  await writeFile(index, JSON.stringify({ schemaVersion: 2, manifests }))
  await writeFile(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  return written.digest
}
