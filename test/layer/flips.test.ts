// One byte changed, in each region of all that an image's layers store: its index, the tables of its blobs, its chunks. What is read is
// then right all the same, or an error that says where. By the real formats and the real codec workers.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, describe, expect, test } from 'vitest'
import { CodecPool } from '../../src/codec/pool.ts'
import { Failure } from '../../src/errors.ts'
import type { Source, Unit } from '../../src/format/format.ts'
import { formatNamed, planUnits } from '../../src/format/formats.ts'
import { filesIn } from '../../src/format/nydus/bootstrap-layer.ts'
import type { Blob, Range } from '../../src/image/blob.ts'
import { type Digest, digestOf, hex } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { buildTree } from '../../src/tree/build.ts'
import type { Chunk } from '../../src/tree/chunk.ts'
import type { Tree } from '../../src/tree/tree.ts'
import { Device } from '../codec/fixture.ts'
import { bareRafs } from '../fixtures/nydus-image.ts'
import { topLayer } from '../format/nydus/nydus-craft.ts'
import { BARE, SAMPLES, sampleLayers } from '../format/samples.ts'
import { archive, member } from '../format/tar/tar-craft.ts'

/** Of a blob: evenly, and more of them in its last bytes, where tables are. */
const FLIPS = 16
const TAIL_BYTES = 5000
const TAIL_FLIPS = 12

const pool = new CodecPool({ threads: 2 })
afterAll(() => pool.close())

/** Blobs as a registry gives them out, under digests that they may not have. */
type Stored = ReadonlyMap<Digest, Uint8Array>

interface Image {
  layers: readonly Descriptor[]
  stored: Stored
  /** The layers of the image that has the tables of this one. */
  companion?: readonly Descriptor[]
}

function sourceOf({ stored, companion }: Image): Source {
  const blob = ({ digest, size }: { digest: Digest; size: number }): Blob => ({
    digest,
    size,
    read: async ({ start, end }: Range) => {
      const bytes = stored.get(digest)
      if (!bytes || start < 0 || start >= end || end > bytes.length)
        throw new Error(`read of ${start} to ${end} in ${digest}`)
      return bytes.slice(start, end)
    },
  })
  const companions = companion?.map((descriptor) => ({ descriptor, blob: blob(descriptor) }))
  return {
    repository: 'registry.example.com/app',
    blob,
    sizeOf: async () => undefined,
    companion: async () => companions,
  }
}

function unitsOf({ layers }: Image): Unit[] {
  const planned = [...planUnits({ layers }).values()]
  return [
    ...new Set(
      planned.map((each) => {
        if ('why' in each) throw new Error(each.why)
        return each
      }),
    ),
  ]
}

function treeOf(unit: Unit, index: Uint8Array): Tree {
  return buildTree(formatNamed(unit.format).parseIndex(index, unit))
}

/** A unit as it is, and all of its chunks on a device. */
class Whole {
  readonly unit: Unit
  readonly index: Uint8Array
  readonly tree: Tree
  readonly #device: Device

  private constructor(unit: Unit, index: Uint8Array, device: Device) {
    this.unit = unit
    this.index = index
    this.tree = treeOf(unit, index)
    this.#device = device
  }

  static async read(unit: Unit, image: Image, device: Device): Promise<Whole> {
    const index = await formatNamed(unit.format).readIndex(unit, sourceOf(image))
    const whole = new Whole(unit, index, device)
    for (const failed of await decode(whole.tree, whole.chunks(), image.stored, device)) throw failed.error
    return whole
  }

  /** Numbers of those that hold byte `at` of a blob; without it, of all. */
  chunks(blob?: Digest, at = 0): number[] {
    const { chunks } = this.tree
    return Array.from({ length: chunks.length }, (_, i) => i).filter((i) => {
      const { start, end } = chunks.storedRange(i)
      return blob === undefined || (chunks.blobs[chunks.blobOf(i)]?.digest === blob && start <= at && at < end)
    })
  }

  expectSame(chunk: Chunk, other: Device): void {
    for (const { at, length } of chunk.places)
      expect(Buffer.compare(other.read(at, length), this.#device.read(at, length))).toBe(0)
  }
}

/** Decodes chunks, and returns those that failed. */
async function decode({ chunks }: Tree, numbers: readonly number[], stored: Stored, device: Device) {
  const failed: { number: number; error: unknown }[] = []
  await Promise.all(
    numbers.map((number) => {
      const chunk = chunks.get(number)
      const blob = stored.get(chunks.blobs[chunk.blob]?.digest as Digest) as Uint8Array // planUnits knows them
      const bytes = blob.slice(chunk.stored.start, chunk.stored.end)
      return pool
        .decode(chunk, bytes, device.slot(number), { priority: 'demand' })
        .catch((error: unknown) => failed.push({ number, error }))
    }),
  )
  return failed
}

/** What became of a byte that was changed. */
type Fate = 'index refused' | 'chunk refused' | 'right bytes'

async function fateOf(whole: Whole, image: Image, digest: Digest, at: number): Promise<Fate> {
  const bytes = Uint8Array.from(image.stored.get(digest) as Uint8Array) // one of its own
  bytes[at] = (bytes[at] as number) ^ (1 << (at % 8))
  const stored = new Map([...image.stored, [digest, bytes]])
  const { unit, tree, index } = whole
  let other: Tree
  try {
    const read = await formatNamed(unit.format).readIndex(unit, sourceOf({ ...image, stored }))
    other = Buffer.compare(read, index) === 0 ? tree : treeOf(unit, read)
  } catch (error) {
    expect(error).toBeInstanceOf(Failure)
    expect((error as Failure).message).toContain(unit.shown.digest)
    return 'index refused'
  }
  // of other tables nothing may be believed but where chunks are
  expect(other.digest).toBe(tree.digest)
  expect(other.chunks.contentDigest()).toBe(tree.chunks.contentDigest())
  const isMoved = (i: number) => !isDeepStrictEqual(other.chunks.get(i), tree.chunks.get(i))
  const numbers = other === tree ? whole.chunks(digest, at) : whole.chunks().filter(isMoved)
  using device = new Device()
  return await fateOfChunks(whole, other, numbers, stored, device)
}

async function fateOfChunks(
  whole: Whole,
  tree: Tree,
  numbers: readonly number[],
  stored: Stored,
  device: Device,
): Promise<Fate> {
  const failed = new Map((await decode(tree, numbers, stored, device)).map(({ number, error }) => [number, error]))
  for (const number of numbers) {
    const chunk = tree.chunks.get(number)
    const error = failed.get(number)
    if (error === undefined) whole.expectSame(chunk, device)
    else
      expect(error).toMatchObject({
        name: 'Failure',
        message: expect.stringContaining(`chunk at ${chunk.stored.start}`),
      })
  }
  return failed.size > 0 ? 'chunk refused' : 'right bytes'
}

function placesIn({ length }: Uint8Array): number[] {
  const tail = Math.min(length, TAIL_BYTES)
  const spread = (count: number, from: number, bytes: number) =>
    Array.from({ length: count }, (_, i) => from + Math.floor((i * (bytes - 1)) / (count - 1)))
  return [...new Set([...spread(FLIPS, 0, length), ...spread(TAIL_FLIPS, length - tail, tail)])]
}

const root = () => SAMPLES as string // the tests are made where it is
const blobAt = (digest: Digest) => new Uint8Array(readFileSync(join(root(), 'samples/oci/blobs/sha256', hex(digest))))

function ociImage(tag: string, companionTag?: string): Image {
  const descriptors = (of: string) => sampleLayers('samples/oci', of).map(({ descriptor }) => descriptor)
  const layers = descriptors(tag)
  const companion = companionTag === undefined ? [] : descriptors(companionTag)
  const referred = unitsOf({ layers, stored: new Map() }).flatMap(({ blobs }) => blobs)
  const stored = new Map([...layers, ...companion, ...referred].map(({ digest }) => [digest, blobAt(digest)]))
  return companionTag === undefined ? { layers, stored } : { layers, stored, companion }
}

async function bareImage(name: string): Promise<Image> {
  const layers = await bareRafs(join(root(), 'samples/rafs'), name)
  const stored = new Map(layers.map(({ descriptor, bytes }) => [descriptor.digest, bytes]))
  return { layers: layers.map(({ descriptor }) => descriptor), stored }
}

/** The same, its bootstrap layer without the tables of blobs that new converters put there: they are read from the blobs. */
function withoutTables({ layers, stored }: Image): Image {
  const shown = layers.at(-1) as Descriptor
  const { bootstrap } = filesIn(gunzipSync(stored.get(shown.digest) as Uint8Array), 'layer')
  const bytes = new Uint8Array(gzipSync(archive(member({ name: 'image/image.boot' }, bootstrap))))
  const top = topLayer({ digest: digestOf(bytes), size: bytes.length })
  return { layers: [...layers.slice(0, -1), top], stored: new Map([...stored, [top.digest, bytes]]) }
}

const IMAGES: Record<string, () => Image | Promise<Image>> = {
  esgz: () => ociImage('esgz'),
  'esgz-min': () => ociImage('esgz-min'),
  'esgz-ext': () => ociImage('esgz-ext', 'esgz-ext-esgztoc'),
  nydus: () => ociImage('nydus'),
  'nydus-zran': () => ociImage('nydus-zran'),
  'nydus-zran with tables in its blobs': () => withoutTables(ociImage('nydus-zran')),
  zstd: () => ociImage('zstd'),
  'zstd-podman': () => ociImage('zstd-podman'),
  ...Object.fromEntries(BARE.map((name) => [name, () => bareImage(name)])),
}

if (SAMPLES) describe('a changed byte of a sample is an error that names it, or leaves the right bytes', sampleTests)
else test.skip('changed bytes of samples: LAZYLAYER_SAMPLES is not set', () => {})

function sampleTests(): void {
  for (const [name, make] of Object.entries(IMAGES)) {
    test(name, async () => {
      const image = await make()
      const fates = new Map<Fate, number>()
      for (const unit of unitsOf(image)) {
        using device = new Device()
        const whole = await Whole.read(unit, image, device)
        const companion = image.companion?.map(({ digest }) => digest) ?? []
        for (const digest of new Set([...unit.blobs.map((each) => each.digest), unit.shown.digest, ...companion])) {
          for (const at of placesIn(image.stored.get(digest) as Uint8Array)) {
            const fate = await fateOf(whole, image, digest, at)
            fates.set(fate, (fates.get(fate) ?? 0) + 1)
          }
        }
      }
      expect(fates.get('index refused')).toBeGreaterThan(0)
      expect(fates.get('chunk refused')).toBeGreaterThan(0)
    })
  }
}
