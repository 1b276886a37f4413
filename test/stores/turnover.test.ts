// That the list of layers has room again when it was full, and that nothing goes that an engine uses, or may be about to.
import { expect, onTestFinished, test, vi } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { ImageStoreParts } from '../../src/stores/image-store.ts'
import { diffId, list, World } from './image-world.ts'
import { digest, lazy, plain, proven } from './store.ts'

const HOUR_MS = 3_600_000
const NOW = Date.UTC(2026, 0, 10)

/** Images of ten layers each that were listed in an earlier life, the first the longest ago. */
function filled(world: World, images: number, ageMs = (_: number): number => 48 * HOUR_MS): void {
  vi.useFakeTimers({ toFake: ['Date'], now: NOW })
  onTestFinished(() => void vi.useRealTimers())
  for (let i = 0; i < images; i++) {
    const layers = Array.from({ length: 10 }, (_, j) => lazy(`layer ${i} ${j}`))
    const by = Array<'index'>(10).fill('index')
    const askedAt = NOW - ageMs(i) + i
    world.listed.push({ reference: world.push(`${i}`, layers), manifest: digest(`${i}`), by, askedAt })
  }
}

/** Of the image `i` of those. */
const topOf = (world: World, i: number) =>
  world.entries.find((each) => each['toc-digest'] === digest(`index of layer ${i} 9`))?.id as string

const isListed = (world: World, name: string) =>
  world.entries.some((each) => each['toc-digest'] === digest(`index of ${name}`))

const TURNED = / images that no engine uses are listed no more, (\d+) layers are/

/** When what was begun has ended. @returns what it said */
const turned = (world: World) =>
  vi.waitFor(() => {
    const said = world.messages.find((each) => TURNED.test(each))
    expect(said).toBeDefined()
    return said
  }, 10_000)

/** A world where a hundred layers are the most that are listed. */
const bounded = (more: Partial<ImageStoreParts>) => new World({ layersMax: 100, ...more })

test('a list that is full refuses, says so, and has room again for those that come then', async () => {
  const used = new Set<string>()
  const world = bounded({ inUse: async () => used })
  filled(world, 10)
  const store = await world.show()
  expect(store.size).toBe(100)
  used.add(topOf(world, 0))
  const kept = topOf(world, 9)
  const reference = world.push('new', [lazy('new')])
  const refused = await list(store, reference)
  expect(refused).toMatchObject({ listed: [], left: [digest('new')] })
  expect(refused.why).toContain('100 layers are listed already')
  await turned(world)
  expect(world.messages).toContainEqual(
    expect.stringContaining(`${reference}: layers from ${digest('new')} on are left`),
  )
  expect(await list(store, reference)).toMatchObject({ left: [] })
  // sixty stay, and the one that is used; the oldest went, on disk, too
  expect(store.size).toBe(61)
  expect(world.forgotten).toHaveLength(4)
  expect(world.forgotten[0]).toBe('example.com/app:1')
  expect([isListed(world, 'layer 0 0'), isListed(world, 'layer 1 0')]).toEqual([true, false])
  expect(topOf(world, 9)).toBe(kept)
  expect(world.uncovered).toHaveLength(40)
  // with nothing left of what went
  expect([...world.files.keys()].filter((path) => path.startsWith('/images/overlay/l/'))).toHaveLength(61)
  expect([...world.files.keys()].filter((path) => path.endsWith('.tar-split.gz'))).toHaveLength(61)
  expect(await list(store, 'example.com/app:1')).toMatchObject({ left: [] })
  expect(isListed(world, 'layer 1 9')).toBe(true)
})

test('turned over for ever, the list stays within its bound, and refuses nothing', async () => {
  let now = 0
  const world = bounded({ inUse: async () => new Set(), now: () => now })
  filled(world, 0)
  const store = await world.show()
  for (let i = 0; i < 40; i++) {
    now = i * 4 * HOUR_MS
    vi.setSystemTime(NOW + now)
    const layers = Array.from({ length: 10 }, (_, j) => lazy(`layer ${i} ${j}`))
    expect(await list(store, world.push(`${i}`, layers))).toMatchObject({ left: [] })
    if (store.size > 80) await turned(world)
    world.messages.length = 0
    expect(store.size).toBeLessThanOrEqual(80)
  }
  expect(world.forgotten.length + store.size / 10).toBe(40)
})

test('what was asked for within a day stays, and when it presses, what was within an hour', async () => {
  const world = bounded({ inUse: async () => new Set() })
  filled(world, 9, (i) => (i < 2 ? 25 : 2) * HOUR_MS)
  await list(await world.show(), world.push('new', [lazy('new')]))
  await turned(world)
  expect(world.forgotten).toHaveLength(2)
  const pressed = bounded({ inUse: async () => new Set() })
  filled(pressed, 10, (i) => (i < 3 ? 2 : 0.5) * HOUR_MS)
  await list(await pressed.show(), pressed.push('new', [lazy('new')]))
  await turned(pressed)
  expect(pressed.forgotten).toHaveLength(3)
})

test('a list that is full of what is used, or asked for, says so', async () => {
  const world = bounded({ inUse: async (layers) => new Set(layers.map(({ id }) => id)) })
  filled(world, 10)
  const store = await world.show()
  await list(store, world.push('new', [lazy('new')]))
  expect(await turned(world)).toContain('100 layers are: until engines use fewer, more are left to them')
  expect([store.size, world.forgotten]).toEqual([100, []])
})

test('nothing goes where it is not known what engines use', async () => {
  let looks = 0
  const world = bounded({
    inUse: async () => {
      looks++
      return undefined
    },
  })
  filled(world, 9)
  const store = await world.show()
  await list(store, world.push('new', [lazy('new')]))
  await vi.waitFor(() => expect(looks).toBe(1))
  await list(store, world.push('newer', [lazy('newer')]))
  expect([store.size, world.forgotten, looks]).toEqual([92, [], 1]) // it is not asked all the time
})

test('what an engine took into use while it went comes back as it was, and stays', async () => {
  const unknown = async () => {
    throw Failure.system('a root cannot be read')
  }
  const after: ((before: World) => Promise<Set<string> | undefined>)[] = [
    async (before) => new Set([topOf(before, 3)]),
    // then it may be anything
    async () => undefined,
    unknown,
  ]
  for (const [i, taken] of after.entries()) {
    const before = bounded({})
    filled(before, 9)
    await before.show()
    let looks = 0
    const world = bounded({ inUse: async () => (looks++ === 0 ? new Set() : await taken(before)) })
    filled(world, 9)
    const store = await world.show()
    await list(store, world.push('new', [lazy('new')]))
    const [left, forgotten] = i === 0 ? [61, 3] : [91, 0]
    await vi.waitFor(() => expect([looks, store.size, world.forgotten.length]).toEqual([2, left, forgotten]), 10_000)
    expect(world.forgotten).not.toContain('example.com/app:3')
    const was = new Map(before.entries.map((each) => [each.id, each]))
    const is = world.entries.filter(({ id }) => was.has(id))
    for (const each of is) expect(each).toEqual(was.get(each.id))
    expect(is.map(({ id }) => id)).toContain(topOf(before, 3))
    // each after its parent
    const places = new Map(world.entries.map(({ id }, i) => [id, i]))
    const parents = world.entries.flatMap(({ id, parent }) => (parent === undefined ? [] : [[parent, id] as const]))
    expect(parents.filter(([parent, id]) => (places.get(parent) ?? 100) >= (places.get(id) ?? 0))).toEqual([])
  }
})

test('what is listed while it goes stays', async () => {
  const asked: Promise<unknown>[] = []
  const world: World = bounded({
    inUse: async () => new Set(),
    pause: async () => {
      expect(isListed(world, 'layer 2 0')).toBe(false)
      asked.push(list(await store, 'example.com/app:2'))
      await Promise.all(asked)
    },
  })
  filled(world, 9)
  const store = world.show()
  await list(await store, world.push('new', [lazy('new')]))
  await turned(world)
  expect(await asked[0]).toMatchObject({ left: [] })
  for (let j = 0; j < 10; j++) expect(isListed(world, `layer 2 ${j}`)).toBe(true)
  expect([isListed(world, 'layer 1 0'), isListed(world, 'layer 3 0')]).toEqual([false, false])
  expect(world.forgotten).toHaveLength(3)
})

test('entries for other blobs of a tar go with the images that have them', async () => {
  const tar = digest('tar')
  const world = bounded({ inUse: async () => new Set() })
  filled(world, 9)
  for (const name of ['one', 'other']) {
    world.verdicts.set(digest(name), proven(tar))
    const reference = world.push(name, [plain(name)], [tar])
    world.listed.unshift({ reference, manifest: digest(name), by: ['diffid'], proven: [true] })
  }
  const store = await world.show()
  const blobs = () => world.entries.flatMap((each) => each['compressed-diff-digest'] ?? [])
  expect(blobs().sort()).toEqual(['one', 'other'].map(digest).sort())
  await list(store, world.push('new', [plain('new')], [diffId(0, 'new').digest]), 'none')
  await list(store, world.push('more', [lazy('more')]))
  await turned(world)
  expect(blobs()).toEqual([])
})

test('an ID that engines may have given to an image is another’s when nothing refers to the first any more', async () => {
  const world = bounded({ inUse: async () => new Set() })
  filled(world, 9)
  const shared = [digest('DiffID of base')]
  const victim = world.push('victim', [lazy('base')], shared)
  world.listed.unshift({ reference: victim, manifest: digest('victim'), by: ['index'] })
  const store = await world.show()
  await list(store, world.push('new', [lazy('new')]))
  await turned(world)
  expect(await list(store, world.push('twin', [lazy('base')], shared))).toMatchObject({ listed: [{ by: 'index' }] })
})

test('when an image was asked for last is known after a restart', async () => {
  const world = bounded({})
  filled(world, 9)
  await list(await world.show(), 'example.com/app:0')
  const next = world.restarted({ layersMax: 100, inUse: async () => new Set() })
  const store = await next.show()
  await list(store, next.push('new', [lazy('new')]))
  await turned(next)
  expect(next.forgotten).toEqual(['example.com/app:1', 'example.com/app:2', 'example.com/app:3', 'example.com/app:4'])
})

test('an agent that ends while the list turns over forgets nothing of what is on its way', async () => {
  const paused = Promise.withResolvers<void>()
  let looks = 0
  const world = bounded({
    inUse: async () => (looks++ === 0 ? new Set() : undefined),
    pause: (_, signal) => {
      paused.resolve()
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    },
  })
  filled(world, 9)
  const store = await world.show()
  await list(store, world.push('new', [lazy('new')]))
  await paused.promise
  await store.end()
  expect([world.forgotten, world.messages, looks]).toEqual([[], [], 2])
})
