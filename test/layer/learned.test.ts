import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { Range } from '../../src/image/blob.ts'
import type { Profile } from '../../src/image/profile.ts'
import type { ResolvedImage } from '../../src/layer/image.ts'
import { Learned, type LearnedParts } from '../../src/layer/learned.ts'
import type { ProfileOrigin } from '../../src/store/profiles.ts'
import { READY_VERIFIED } from '../../src/tree/ready.ts'
import { sourceOf } from '../format/memory-blob.ts'
import { unitOf } from '../format/unit.ts'
import { lazyLayer, type MadeLayer, openCache } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'
import { digest } from '../stores/store.ts'
import { imageOf } from './resolved.ts'

const ORIGIN = 'registry.example.com'
/** Files far apart: what is fetched of one brings no other along. */
const FILES = Object.fromEntries(['a', 'b', 'c', 'd', 'e', 'f'].map((name) => [name, noise(name, 200_000)]))

function noise(seed: string, length: number): string {
  let text = ''
  for (let i = 0; text.length < length; i++) text += digest(`${seed}${i}`).slice(7)
  return text.slice(0, length)
}

/** An image of one layer, open, on an empty cache. */
async function world(
  published: LearnedParts['published'] = async () => undefined,
  made?: MadeLayer,
  signal = () => new AbortController().signal,
) {
  const cache = await openCache(await folder())
  const one = made ?? (await lazyLayer(FILES))
  const image = imageOf([one])
  const layer = await cache.layers.open(unitOf(one.descriptor), sourceOf(one.blob), ORIGIN)
  const logged: string[] = []
  const learned = new Learned({
    profiles: cache.store.profiles,
    platform: 'linux/amd64',
    chunksOf: (...of) => cache.builder.chunksOf(...of),
    published,
    signal,
    log: (message) => void logged.push(message),
  })
  const of = (manifest: ResolvedImage['digest']) => ({ repository: `${ORIGIN}/app`, platform: 'linux/amd64', manifest })
  const keep = (from: ProfileOrigin, profile: Profile, manifest = image.digest) =>
    cache.store.profiles.keep(of(manifest), from, profile)
  const wanted = (...paths: string[]): Profile => ({
    files: paths.map((path) => ({ layer: one.descriptor.digest, path, ranges: [] })),
    stored: [],
  })
  const chunkOf = async (path: string) => {
    const image = await layer.openImage()
    const bytes = new Uint8Array(await image.readFile())
    await image.close()
    const [chunk] = await cache.builder.chunksOf(bytes, layer.chunks, wanted(path).files)
    return chunk as number
  }
  const there = async () => {
    const image = await layer.openImage()
    const bytes = new Uint8Array(await image.readFile())
    await image.close()
    const states = await Promise.all(
      Object.keys(FILES).map(async (path) => {
        const file = { layer: one.descriptor.digest, path, ranges: [] }
        const chunks = await cache.builder.chunksOf(bytes.slice(), layer.chunks, [file], new AbortController().signal)
        return [...chunks].every((chunk) => layer.slots.state(chunk) === READY_VERIFIED) ? path : ''
      }),
    )
    return states.join('')
  }
  return { image, layer, learned, keep, wanted, chunkOf, there, logged, made: one, of, profiles: cache.store.profiles }
}

test('what the last start read is fetched ahead, in its order and nothing else', async () => {
  const { image, layer, learned, keep, wanted, there, made } = await world()
  await keep('start', wanted('e', 'b'))
  made.blob.ranges.splice(0)
  await learned.prefetch(image, layer)
  expect(await there()).toBe('be')
  const [first, second] = made.blob.ranges.map(({ start }) => start)
  expect(first).toBeGreaterThan(second as number)
  expect(learned.chunks).toBe(2)
})

test('a cache that was full learns nothing less when it has room again', async () => {
  let full = new AbortController()
  const { image, layer, learned, keep, wanted, there } = await world(undefined, undefined, () => full.signal)
  await keep('start', wanted('a'))
  full.abort()
  await learned.prefetch(image, layer)
  expect(await there()).toBe('')
  full = new AbortController()
  await learned.prefetch(image, layer)
  expect(await there()).toBe('a')
})

test('what was learned of another version holds for the same paths, in whatever layer they are now', async () => {
  const { image, layer, learned, keep, there } = await world()
  const before = (path: string) => ({ layer: digest('a layer of before'), path, ranges: [] })
  await keep('start', { files: [before('c'), before('gone'), before('d')], stored: [] }, digest('another version'))
  await learned.prefetch(image, layer)
  expect(await there()).toBe('cd')
})

test('of a layer that the profile names, no path of another layer counts', async () => {
  const { image, layer, learned, keep, wanted, there } = await world()
  const other = { layer: digest('another layer'), path: 'b', ranges: [] }
  await keep('start', { files: [...wanted('a').files, other], stored: [] })
  await learned.prefetch(image, layer)
  expect(await there()).toBe('a')
})

test('the repository is asked as soon as the image is known, and not again for its layers', async () => {
  let asked = 0
  const { image, layer, learned, wanted, there } = await world(async () => {
    asked++
    return profile
  })
  const profile = wanted('f')
  learned.expect(image)
  await expect.poll(() => asked).toBe(1)
  await learned.prefetch(image, layer)
  expect(await there()).toBe('f')
  expect(asked).toBe(1)
})

test('what the repository says is fetched behind, kept, and cut at a quarter of the image', async () => {
  const { image, layer, learned, wanted, there, of, profiles } = await world(async () => profile)
  const profile = wanted('f', 'a', 'b', 'c', 'd', 'e')
  await learned.prefetch(image, layer)
  expect(await there()).toBe('f')
  expect(await profiles.of(of(image.digest))).toMatchObject({ from: 'registry', profile })
})

test('where what is wanted is stored is known of the very image alone, and of what others say a quarter counts, once', async () => {
  const { image, layer, learned, keep, wanted, chunkOf, there, made } = await world()
  const { digest: blob } = made.descriptor
  const stored = [await chunkOf('a'), await chunkOf('f')].map((chunk) => layer.chunks.storedRange(chunk))
  const profile = { ...wanted('a', 'f'), stored: [{ layer: blob, ranges: stored }] }
  await keep('start', profile, digest('another version'))
  expect(await learned.early(image, made.descriptor)).toEqual([])
  const here = { ...image, manifest: { ...image.manifest } } // as it is resolved again
  await keep('start', profile)
  expect(await learned.early(here, made.descriptor)).toEqual(stored)
  const said = { ...image, manifest: { ...image.manifest } }
  const [, last] = stored as [Range, Range]
  const more = { start: last.end + 1, end: 2 * made.blob.size }
  await keep('registry', { ...wanted('f'), stored: [{ layer: blob, ranges: [last, more] }] })
  expect(await learned.early(said, made.descriptor)).toEqual([last])
  await learned.prefetch(said, layer)
  expect(await there()).toBe('f')
})

test('who has started an image asks nobody; who knows another version does', async () => {
  let asked = 0
  const { image, layer, learned, keep, wanted } = await world(async () => {
    asked++
    return undefined
  })
  await keep('start', wanted('a'), digest('another version'))
  await learned.prefetch(image, layer)
  expect(asked).toBe(1)
  await keep('start', wanted('a'))
  await learned.prefetch({ ...image, manifest: { ...image.manifest } }, layer) // as it is resolved again
  expect(asked).toBe(1)
})

test('nobody waits for the repository before what is known is asked for', async () => {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const { image, layer, learned, keep, wanted, there } = await world(() => promise)
  await keep('start', wanted('b'), digest('another version'))
  const all = learned.prefetch(image, layer)
  await expect.poll(there).toBe('b')
  resolve(undefined)
  await all
})

test('a repository that fails, and a profile that names nothing here, are no errors', async () => {
  const { image, layer, learned, keep, wanted, there, logged } = await world(async () => {
    throw Failure.unavailable('the registry is away')
  })
  await keep('start', wanted('nothing', 'a/b'), digest('another version'))
  await learned.prefetch(image, layer)
  expect(await there()).toBe('')
  expect(logged).toEqual([expect.stringContaining('the registry is away')])
})
