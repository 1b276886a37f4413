// That each image keeps its own configuration in engines that make IDs of images of the indexes of their layers alone.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { TAR_SIZE, TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import type { Digest } from '../../src/image/digest.ts'
import { type Descriptor, DOCKER_MANIFEST } from '../../src/image/manifest.ts'
import type { ResolvedImage } from '../../src/layer/image.ts'
import { trustAll } from '../../src/stores/identity.ts'
import { ImageIds, type KnownBy } from '../../src/stores/image-ids.ts'
import type { Prove } from '../../src/stores/read-whole.ts'
import { runs } from '../fixtures/runs.ts'
import { Engine } from './engine.ts'
import { LARGE, list, toc, World } from './image-world.ts'
import { digest, image, lazy, plain, proven } from './store.ts'

/** What engines would find layers by, in the order of the list. */
const indexesOf = (world: World) => world.entries.flatMap((each) => each['toc-digest'] ?? [])

test('of two images that engines would give one ID the second has its layers listed by DiffIDs alone, and so has the first from then on', async () => {
  const world = new World()
  const store = await world.show()
  const shared = [digest('DiffID of base'), digest('DiffID of top')]
  const [base, top] = [lazy('base'), lazy('top')]
  await list(store, world.push('victim', [base, top], shared))
  const before = world.entries
  expect(indexesOf(world)).toEqual(['base', 'top'].map((name) => toc(name).digest))
  for (const [i, name] of ['base', 'top'].entries()) world.tars.set(digest(name), proven(shared[i] as Digest))

  const twin = await list(store, world.push('twin', [base, top], shared))
  expect(twin).toMatchObject({ listed: [{ by: 'diffid' }, { by: 'diffid' }], left: [] })
  expect(world.messages).toEqual([
    `example.com/app:twin: engines before Podman 6 would give it the ID of example.com/app:victim; these indexes name no layer any more: ${toc('base').digest}, ${toc('top').digest}`,
  ])
  // nobody finds them by an index; who knows them by their IDs does as before
  const known = ['base', 'top'].map((name) => toc(name).digest)
  for (const index of indexesOf(world)) expect(known).not.toContain(index)
  expect(world.entries.slice(0, 2)).toEqual(before.map((each) => ({ ...each, 'toc-digest': expect.anything() })))
  expect(world.covered).toHaveLength(4)
  expect(await list(store, 'example.com/app:victim')).toMatchObject({ listed: [{ by: 'diffid' }, { by: 'diffid' }] })
})

test('layers of an image that others cannot be told from are the engine’s until they are proven, if they are many bytes', async () => {
  const world = new World()
  const store = await world.show()
  const large = lazy('large', { size: (256 << 20) + 1 })
  await list(store, world.push('victim', [large], [digest('tar')]))
  world.tars.set(digest('large'), proven(digest('tar')))
  const twin = world.push('twin', [large], [digest('tar')])
  const outcome = await list(store, twin)
  expect(outcome).toMatchObject({ listed: [], left: [digest('large')], why: expect.stringContaining('Podman 6') })
  expect(indexesOf(world)).not.toContain(toc('large').digest)
  expect(await list(store, 'example.com/app:victim')).toMatchObject({ left: [digest('large')] })
  expect(await list(store, twin, 'needed')).toMatchObject({ listed: [{ by: 'diffid' }], left: [] })
})

test('a tag more of one image is no other image', async () => {
  const world = new World()
  const store = await world.show()
  for (const tag of ['1', '2']) {
    const reference = world.push(tag, [lazy('base')], [digest('DiffID of base')], 'one')
    expect(await list(store, reference)).toMatchObject({ listed: [{ by: 'index' }] })
  }
  expect(indexesOf(world)).toEqual([toc('base').digest])
})

test('images that are not to be told apart by what engines pull themselves are by DiffIDs', async () => {
  const world = new World()
  const store = await world.show()
  const shared = [digest('DiffID of base')]
  world.tars.set(digest('base'), proven(shared[0] as Digest))
  const mixed = (tag: string) => world.push(tag, [lazy('base'), plain(`of ${tag}`)], shared)
  expect(await list(store, mixed('1'))).toMatchObject({ listed: [{ by: 'index' }], left: [digest('of 1')] })
  expect(await list(store, mixed('2'))).toMatchObject({ listed: [{ by: 'diffid' }], left: [digest('of 2')] })
  expect(await list(store, world.push('3', [lazy('base'), lazy('top')], shared))).toMatchObject({
    listed: [{ by: 'diffid' }, { by: 'index' }],
  })
})

test('also layers above the end of a chain are found by their indexes, where another image lists them', async () => {
  const world = new World()
  const store = await world.show()
  await list(store, world.push('1', [lazy('top')], [digest('DiffID of top')]))
  const ended = (tag: string) => world.push(tag, [plain(`base of ${tag}`, LARGE), lazy('top')])
  expect(await list(store, ended('2'))).toMatchObject({ listed: [] })
  expect(indexesOf(world)).toEqual([toc('top').digest])
  world.tars.set(digest('top'), proven(digest('DiffID of top')))
  expect(await list(store, ended('3'))).toMatchObject({ listed: [] })
  expect(indexesOf(world)).not.toContain(toc('top').digest)
})

test('images that were told apart are after a restart', async () => {
  const world = new World()
  const shared = [digest('DiffID of base')]
  await list(await world.show(), world.push('victim', [lazy('base')], shared))
  const next = world.restarted()
  const store = await next.show()
  expect(indexesOf(next)).toEqual([toc('base').digest])
  next.tars.set(digest('base'), proven(shared[0] as Digest))
  expect(await list(store, 'example.com/app:victim')).toMatchObject({ listed: [{ by: 'index' }] })
  expect(await list(store, next.push('twin', [lazy('base')], shared))).toMatchObject({ listed: [{ by: 'diffid' }] })
})

test('two images that engines would give one ID, listed at once, are told apart', async () => {
  const world = new World()
  const store = await world.show()
  const shared = [digest('DiffID of base')]
  world.tars.set(digest('base'), proven(shared[0] as Digest))
  const tags = ['1', '2', '3'].map((tag) => world.push(tag, [lazy('base')], shared))
  const by = (await Promise.all(tags.map((each) => list(store, each)))).map(({ listed }) => listed[0]?.by)
  expect(by.filter((each) => each === 'diffid').length).toBeGreaterThanOrEqual(2)
  expect(indexesOf(world)).not.toContain(toc('base').digest)
})

test('an index counts for a blob that engines may have pulled themselves, and does not: neither ID may be another image’s', async () => {
  const world = new World()
  const store = await world.show()
  const shared = ['base', 'own'].map((name) => digest(`DiffID of ${name}`))
  for (const name of ['base', 'own']) world.tars.set(digest(name), proven(digest(`DiffID of ${name}`)))
  world.broken.add(digest('own'))
  const victim = await list(store, world.push('victim', [lazy('base'), lazy('own')], shared))
  expect(victim).toMatchObject({ listed: [{ by: 'index' }], left: [digest('own')] })
  for (const own of [lazy('own'), plain('own')]) {
    world.broken.clear()
    const other = await list(store, world.push('other', [lazy('base'), own], shared))
    expect(other.listed[0]).toMatchObject({ by: 'diffid' })
  }
})

test('the same image is lazy when its registry is well again', async () => {
  const world = new World()
  const store = await world.show()
  world.broken.add(digest('top'))
  const reference = world.push('1', [lazy('base'), lazy('top')])
  await list(store, reference)
  world.broken.clear()
  const next = world.restarted()
  for (const again of [store, await next.show()]) {
    expect(await list(again, reference)).toMatchObject({ listed: [{ by: 'index' }, { by: 'index' }] })
  }
})

test('where layers are named by DiffIDs alone, those of small images are read whole, and what was named by its index is not found by it', async () => {
  const world = new World()
  world.tars.set(digest('base'), proven(digest('tar')))
  const reference = world.push('1', [lazy('base')], [digest('tar')])
  await list(await world.show(), reference)
  expect(indexesOf(world)).toEqual([toc('base').digest])
  const next = world.restarted({ byIndex: false })
  next.tars.set(digest('base'), proven(digest('tar')))
  const store = await next.show()
  expect(next.entries.map(({ id }) => id)).toEqual(world.entries.map(({ id }) => id))
  expect(indexesOf(next)).not.toContain(toc('base').digest)
  expect(await list(store, reference)).toMatchObject({ listed: [{ by: 'diffid' }], left: [] })
})

test('there is an end to how many layers are kept apart, and who comes then gets no ID', () => {
  const ids = new ImageIds(true)
  // each of a thousand layers
  const known = (i: number) => Array<[Digest]>(1000).fill([digest(`index ${i}`)])
  const claim = (i: number) => ids.claim(image(`${i}`, [lazy('layer')]), known(i))
  for (let i = 0; i < 100; i++) expect(claim(i)).toBe(true)
  expect(claim(100)).toContain('100000 layers are kept apart already, until images that no engine uses are forgotten')
  expect(claim(7)).toBe(false)
  ids.release(image('7', [lazy('layer')]).manifest.config.digest, known(7))
  expect(claim(100)).toBe(true)
})

test('IDs that engines may give are kept apart, whatever they know layers by', () => {
  const ids = new ImageIds(true)
  const [a, b, c] = ['a', 'b', 'c'].map(digest)
  const claim = (name: string, ...known: KnownBy) => ids.claim(image(name, []), known)
  expect(claim('one', [a], [b, undefined])).toBe(true)
  expect(claim('one', [a], [b, undefined])).toBe(false)
  expect(claim('other', [a], [b])).toContain('the ID of')
  expect(claim('other', [a], [undefined])).toContain('the ID of')
  expect(claim('other', [a, undefined], [c, b])).toContain('the ID of')
  expect(claim('other', [a], [c])).toBe(true)
  // of what they know by DiffIDs alone they make another ID, and of more layers, too
  expect(claim('more', [undefined], [undefined])).toBe(false)
  expect(claim('more', [a], [b], [undefined])).toBe(true)
})

test('after a restart each ID that an image may have had is its own, however many of its layers were left to engines', () => {
  const layers = [plain('base'), ...Array.from({ length: 20 }, (_, i) => lazy(`${i}`))]
  const ids = new ImageIds(true)
  ids.restore(image('victim', layers), [])
  const known = layers.map(({ annotations }) => [annotations[TOC_DIGEST] as Digest | undefined])
  expect(ids.claim(image('other', layers), known)).toContain('the ID of')
  expect(ids.claim(image('victim', layers), known)).toBe(true)
})

test('one answer that a registry did not give costs an image of many layers nothing, now and after a restart', async () => {
  const world = new World()
  const layers = Array.from({ length: 10 }, (_, i) => lazy(`${i}`, { size: 60 << 20 }))
  const reference = world.push('1', layers)
  world.broken.add(digest('0'))
  const store = await world.show()
  expect(await list(store, reference)).toMatchObject({ listed: [] })
  world.broken.clear()
  for (const again of [store, await world.restarted().show()]) {
    const { listed } = await list(again, reference)
    expect(listed.map(({ by }) => by)).toEqual(layers.map(() => 'index'))
  }
})

test('an ID that nobody was told of is kept from nobody: images with a small plain layer each on one lazy base', async () => {
  const world = new World()
  const shared = [digest('DiffID of base')]
  let store = await world.show()
  const app = (tag: string) => {
    world.tars.set(digest(`own of ${tag}`), proven(digest(`DiffID 1 of ${tag}`)))
    return world.push(tag, [lazy('base'), plain(`own of ${tag}`), lazy(`top of ${tag}`)], shared)
  }
  const by = [{ by: 'index' }, { by: 'diffid' }, { by: 'index' }]
  expect(await list(store, app('1'))).toMatchObject({ listed: by })
  expect(world.forgotten).toEqual(['example.com/app:1'])
  expect(await list(store, app('2'))).toMatchObject({ listed: by })
  store = await world.restarted().show()
  expect(await list(store, 'example.com/app:1')).toMatchObject({ listed: by })
})

test('an ID that an engine may have gone by, because the rest was late, is kept', async () => {
  let now = 0
  const world = new World({ now: () => now++ * 2_000 })
  const store = await world.show()
  world.tars.set(digest('own'), proven(digest('DiffID 1 of 1')))
  const reference = world.push('1', [lazy('base'), plain('own'), lazy('top')])
  expect(await list(store, reference)).toMatchObject({ listed: [{ by: 'index' }, { by: 'diffid' }, { by: 'index' }] })
  expect(world.forgotten).toEqual([])
  expect(world.listed.map(({ by }) => by.length)).toEqual([1, 3])
})

test('believed layers are not read whole, whatever their indexes name', async () => {
  const world = new World({ byIndex: false, trustsDiffIds: trustAll })
  world.parts.layers.prove = () => Promise.reject(new Error('it was read'))
  const reference = world.push('1', [lazy('base'), plain('top', LARGE)])
  expect(await list(await world.show(), reference)).toMatchObject({ listed: [{ by: 'diffid' }] })
  expect(world.messages).toEqual([expect.stringContaining('not lazy')])
})

test('nothing is read whole above what the engine pulls', async () => {
  const world = new World({ byIndex: false })
  const store = await world.show()
  world.parts.layers.prove = () => Promise.reject(new Error('it was read'))
  const reference = world.push('1', [plain('base', LARGE), lazy('top')])
  expect(await list(store, reference)).toMatchObject({ listed: [], why: expect.stringContaining('not lazy') })
})

test('an index in a Docker manifest names no layer', async () => {
  const world = new World()
  const store = await world.show()
  world.tars.set(digest('base'), proven(digest('tar')))
  const reference = world.push('1', [lazy('base')], [digest('tar')])
  const made = world.known.get(reference) as ResolvedImage
  world.known.set(reference, { ...made, manifest: { ...made.manifest, mediaType: DOCKER_MANIFEST } })
  expect(await list(store, reference)).toMatchObject({ listed: [], why: expect.stringContaining('Docker manifest') })
  expect(await list(store, reference, 'needed')).toMatchObject({ listed: [{ by: 'diffid' }] })
})

/** Blobs; the last is of one tar and index with the first, and has another digest. */
const BLOBS = ['a', 'b', 'c', 'd', 'a again']
const madeOf = (blob: string) => blob.charAt(0)
const tar = (blob: string) => digest(`tar of ${madeOf(blob)}`)
const indexOfBlob = (blob: string) => toc(madeOf(blob)).digest
const ZSTD = 'application/vnd.oci.image.layer.v1.tar+zstd'

/** A layer as an image may call it: as it is, with no word of an index, of another type, or with another layer's index. */
const layer = fc
  .record({ blob: fc.constantFrom(...BLOBS), as: fc.constantFrom('lazy', 'lazy', 'plain', 'zstd', ...BLOBS) })
  .map(({ blob, as }): { blob: string; descriptor: Descriptor } => {
    const index = BLOBS.includes(as) ? indexOfBlob(as) : indexOfBlob(blob)
    const annotations: Record<string, string> = as === 'plain' ? {} : { [TOC_DIGEST]: index, [TAR_SIZE]: '5000' }
    const mediaType = as === 'zstd' ? { mediaType: ZSTD } : {}
    const size = as === 'lazy' || as === 'zstd' ? {} : { size: LARGE }
    return { blob, descriptor: lazy(blob, { annotations, ...mediaType, ...size }) }
  })
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ pull: fc.nat(5), prove: fc.constantFrom<Prove>('small', 'small', 'needed', 'all') }),
  },
  { weight: 1, arbitrary: fc.record({ glitch: fc.constantFrom(...BLOBS) }) },
  { weight: 1, arbitrary: fc.constant('restart' as const) },
)

test('whatever is pulled in whatever order, each name runs its own configuration, and everything can be pulled', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(layer, { minLength: 1, maxLength: 4 }), { minLength: 2, maxLength: 6 }),
      fc.array(step, { minLength: 2, maxLength: 12 }),
      async (images, steps) => {
        const honest = (world: World) => {
          const { open } = world.parts.layers
          world.parts.layers.open = async (unit, ...more) => {
            const descriptor = unit.shown
            const blob = BLOBS.find((each) => digest(each) === descriptor.digest) as string
            if (descriptor.annotations[TOC_DIGEST] !== indexOfBlob(blob))
              throw Failure.corrupt('no such index is in it')
            return await open(unit, ...more)
          }
          for (const blob of BLOBS) world.tars.set(digest(blob), proven(tar(blob)))
          return world
        }
        let world = honest(new World())
        const references = images.map((layers, i) =>
          world.push(
            `${i}`,
            layers.map(({ descriptor }) => descriptor),
            layers.map(({ blob }) => tar(blob)),
          ),
        )
        let store = await world.show()
        const engine = new Engine()
        const pulled = new Map<string, Digest>()
        for (const each of steps) {
          if (each === 'restart') {
            world = honest(world.restarted())
            store = await world.show()
          } else if ('glitch' in each) {
            if (!world.broken.delete(digest(each.glitch))) world.broken.add(digest(each.glitch))
          } else {
            const reference = references[each.pull % references.length] as string // there are some
            const made = world.known.get(reference) as ResolvedImage
            await list(store, reference, each.prove)
            engine.pull(reference, made, world.files.has('/images/overlay-layers/layers.json') ? world.entries : [])
            pulled.set(reference, made.manifest.config.digest)
          }
          for (const [name, config] of pulled) expect(engine.configOf(name)).toBe(config)
        }
      },
    ),
    { numRuns: runs(25) },
  )
})
