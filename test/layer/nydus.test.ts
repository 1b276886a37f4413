// nydus images, opened: what is fetched for a read, from which blob, and what is refused.
import { createHash } from 'node:crypto'
import { zstdCompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { hex } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { openLayer, type ResolvedImage } from '../../src/layer/image.ts'
import type { LayerLease } from '../../src/layer/layer.ts'
import { MemoryBlob } from '../format/memory-blob.ts'
import { batches, contextHeader, records2 } from '../format/nydus/context-craft.ts'
import { BOOTSTRAP, blobLayer, bootstrapLayer, topLayer } from '../format/nydus/nydus-craft.ts'
import { type Blob6, type Chunk6, craft6, dir6, file6 } from '../format/nydus/v6/rafs6-craft.ts'
import { contents, openCache } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'
import { imageOf } from './resolved.ts'

const sha256 = (text: string) => new Uint8Array(createHash('sha256').update(text).digest())

interface Made {
  blob: MemoryBlob
  entry: Blob6
  /** By file. */
  chunks: Record<string, Chunk6>
}

/** A blob with these files in it, each a chunk as it is. */
function plainBlob(files: Record<string, string>): Made {
  const blob = new MemoryBlob(Buffer.from(`not at 0${Object.values(files).join('')}`))
  let offset = 8
  const chunks = Object.entries(files).map(([name, text], index): [string, Chunk6] => {
    const chunk = { index, size: text.length, offset, digest: sha256(text) }
    offset += text.length
    return [name, chunk]
  })
  // writers know less of their blobs than registries
  return { blob, entry: { id: hex(blob.digest), storedSize: 1 }, chunks: Object.fromEntries(chunks) }
}

/** A blob with these files in one batch, and its tables behind them. */
function batchBlob(files: Record<string, string>): Made {
  const texts = Object.values(files)
  const stored = zstdCompressSync(texts.join(''))
  let within = 0
  const records = texts.map(({ length: size }) => {
    const record = { size, stored: 0, offset: 0, flags: 5, context: 0, within }
    within += size
    return record
  })
  const table = Buffer.concat([records2(records), batches([{ stored: stored.length, size: within }])])
  const blob = new MemoryBlob(new Uint8Array(Buffer.concat([stored, table, contextHeader(texts.length, 1)])))
  const chunks = Object.entries(files).map(([name, text], index): [string, Chunk6] => {
    return [name, { index, size: text.length, stored: 0, digest: sha256(text) }]
  })
  const tables = { offset: stored.length, stored: table.length, decoded: table.length }
  const entry = { id: hex(blob.digest), features: 0x85, chunks: texts.length, tables }
  return { blob, entry, chunks: Object.fromEntries(chunks) }
}

/** An image over these blobs, of which the first `layers` are in its manifest and the others only in its repository. */
function nydusImage(all: readonly Made[], layers = all.length): ResolvedImage {
  const files = all.flatMap(({ chunks }, blob) =>
    Object.entries(chunks).map(([name, chunk]) => [name, file6([{ ...chunk, blob }])] as const),
  )
  const { bytes } = craft6({ root: dir6(Object.fromEntries(files)), blobs: all.map(({ entry }) => entry) })
  const top = bootstrapLayer({ 'image.boot': bytes })
  const below = all.map(({ blob }) => ({ descriptor: blobLayer(blob), blob }))
  const whole = { descriptor: topLayer(top, { [BOOTSTRAP]: 'true' }), blob: top }
  const reach = imageOf([...below, whole])
  const { manifest } = imageOf([...below.slice(0, layers), whole])
  const sizeOf = async (digest: string) => all.find(({ blob }) => blob.digest === digest)?.blob.size
  return { ...reach, manifest, sizeOf }
}

async function opened(image: ResolvedImage): Promise<LayerLease> {
  const { layers } = await openCache(await folder())
  const layer = await openLayer(image, image.manifest.layers.at(-1) as Descriptor, layers)
  if ('why' in layer) throw new Error(layer.why)
  return layer
}

test('files are read from the image’s blobs, and from those of other images that its bootstrap names', async () => {
  const [own, other] = [plainBlob({ a: 'of its own' }), plainBlob({ b: 'of another image', c: 'and more' })]
  const tree = await opened(nydusImage([own, other], 1))
  expect(tree.chunks.blobs).toEqual([own, other].map(({ blob }) => ({ digest: blob.digest, size: blob.size })))
  expect([own.blob.ranges, other.blob.ranges]).toEqual([[], []])
  expect(await contents(tree, 'b')).toBe('of another image')
  expect(await contents(tree, 'a')).toBe('of its own')
})

test('files of a batch come with one read of it, after one of the blob’s tables', async () => {
  const made = batchBlob({ a: 'one', b: 'two', c: 'three' })
  const tree = await opened(nydusImage([made]))
  expect(made.blob.ranges).toHaveLength(1)
  expect(await contents(tree, 'b')).toBe('two')
  expect(await contents(tree, 'c')).toBe('three')
  expect(made.blob.ranges).toHaveLength(2)
})

test('a file of a batch with another digest than the bootstrap has is never served, nor is what came with it', async () => {
  const made = batchBlob({ a: 'one', b: 'two' })
  Object.assign(made.chunks.a as Chunk6, { digest: sha256('other') })
  const tree = await opened(nydusImage([made]))
  await expect(contents(tree, 'a')).rejects.toMatchObject({ code: 'corrupt' })
  await expect(contents(tree, 'b')).rejects.toMatchObject({ code: 'corrupt' })
})
