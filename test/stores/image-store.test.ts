import { expect, test, vi } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { TAR_SIZE } from '../../src/format/estargz/estargz.ts'
import { type Digest, digestOf } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import type { ResolvedImage } from '../../src/layer/image.ts'
import type { StoredBlob } from '../../src/registry/source.ts'
import type { Refutation } from '../../src/store/proofs.ts'
import { layerId, linkName } from '../../src/stores/chain.ts'
import { trustAll, trustNone } from '../../src/stores/identity.ts'
import { BUILT_OF, diffId, type Entry, LARGE, list, toc, treeOf, World } from './image-world.ts'
import { digest, image, lazy, plain, proven, refuted } from './store.ts'

test('an image is listed layer by layer, with names that lead from each to those below', async () => {
  const world = new World()
  const store = await world.show()
  const reference = world.push('1', [lazy('base'), lazy('top')])
  const base = layerId(undefined, toc('base'))
  const top = layerId(base, toc('top'))
  expect(await list(store, reference)).toEqual({
    listed: [
      { digest: digest('base'), id: base, by: 'index' },
      { digest: digest('top'), id: top, by: 'index' },
    ],
    left: [],
  })
  expect(world.entries).toMatchObject([
    { id: base, 'toc-digest': digest('index of base'), 'diff-size': 5000 },
    { id: top, parent: base, 'toc-digest': digest('index of top') },
  ])
  expect(world.entries.some((each) => 'diff-digest' in each || 'compressed-diff-digest' in each)).toBe(false)
  expect(world.text(`overlay/${top}/link`)).toBe(linkName(top))
  expect(world.text(`overlay/${top}/lower`)).toBe(`l/${linkName(base)}`)
  expect(world.text(`overlay/${base}/lower`)).toBeUndefined()
  expect(world.text(`overlay/l/${linkName(top)}`)).toBe(`../${top}/diff`)
  expect(world.text('overlay-images/images.json')).toBe('[]\n')
  expect(world.text('overlay-images/images.lock')).toBe('')
  expect(world.text('overlay-layers/layers.lock')).toBe('')
  expect(world.covered).toEqual([`images/overlay/${base}/diff`, `images/overlay/${top}/diff`])
})

test('three layers are stacked as overlayfs wants them, the nearest first', async () => {
  const world = new World()
  const store = await world.show()
  const { listed } = await list(store, world.push('1', [lazy('a'), lazy('b'), lazy('c')]))
  const [a = '', b = '', c = ''] = listed.map(({ id }) => id)
  expect(world.text(`overlay/${c}/lower`)).toBe(`l/${linkName(b)}:l/${linkName(a)}`)
})

test('every version of the list is another file with a later time, and images at once share one', async () => {
  const world = new World()
  const store = await world.show()
  const shared = [digest('DiffID of base')]
  const references = Array.from({ length: 20 }, (_, i) => world.push(`${i}`, [lazy('base'), lazy(`top ${i}`)], shared))
  await Promise.all(references.map((each) => list(store, each)))
  expect(world.versions.length).toBe(1)
  expect(world.entries.length).toBe(21)
  await list(store, world.push('more', [lazy('base'), lazy('another')], shared))
  await list(store, world.push('even-more', [lazy('base'), lazy('yet another')], shared))
  expect(world.versions.length).toBe(3)
  expect(new Set(world.versions.map(({ node }) => node)).size).toBe(3)
  const times = world.versions.map(({ mtime }) => mtime)
  expect(times).toEqual([...new Set(times)].sort((x, y) => (x < y ? -1 : 1)))
})

test('what is listed already costs no new version', async () => {
  const world = new World()
  const store = await world.show()
  const reference = world.push('1', [lazy('base')])
  const first = await list(store, reference)
  expect(await list(store, reference)).toEqual(first)
  expect(world.versions.length).toBe(1)
})

test('those who ask for one image at once cost one resolution', async () => {
  const world = new World()
  const store = await world.show()
  const reference = world.push('1', [lazy('base')])
  await Promise.all([list(store, reference), list(store, reference), list(store, reference)])
  expect(world.resolved).toEqual([reference])
})

test('a chain ends at the first layer that is not lazy, which is said once', async () => {
  const world = new World()
  const store = await world.show()
  const reference = world.push('1', [lazy('base'), plain('middle', LARGE), lazy('top')])
  const outcome = await list(store, reference)
  expect(outcome.listed.map((each) => each.digest)).toEqual([digest('base')])
  expect(outcome.left).toEqual([digest('middle'), digest('top')])
  await list(store, reference)
  expect(world.messages.filter((each) => each.includes(digest('middle')))).toHaveLength(1)
  expect(world.entries).toHaveLength(1)
})

test('a layer that does not open ends the chain, and is tried again', async () => {
  const world = new World()
  const store = await world.show()
  world.broken.add(digest('top'))
  const reference = world.push('1', [lazy('base'), lazy('top')])
  expect(await list(store, reference)).toMatchObject({ left: [digest('top')], why: 'the index is damaged' })
  world.broken.clear()
  expect(await list(store, reference)).toMatchObject({ left: [] })
  expect(world.entries).toHaveLength(2)
})

test('an image of which nothing can be listed leaves no trace', async () => {
  const world = new World()
  const store = await world.show()
  expect(await list(store, world.push('1', [plain('base', LARGE), lazy('top')]))).toMatchObject({ listed: [] })
  expect(world.versions).toEqual([])
  expect(world.listed).toEqual([])
})

test('an image that claims the DiffID of another is not listed under it', async () => {
  const world = new World()
  const store = await world.show()
  await list(store, world.push('victim', [lazy('good')]))
  await list(store, world.push('attacker', [lazy('evil')]))
  for (const entry of world.entries) expect(entry['diff-digest']).toBeUndefined()
  expect(new Set(world.entries.map(({ id }) => id)).size).toBe(2)
})

test('where claims are believed, layers bear DiffIDs', async () => {
  const world = new World({ trustsDiffIds: trustAll })
  const store = await world.show()
  await list(store, world.push('1', [lazy('base'), lazy('top')]))
  const [base, top] = [digest('DiffID 0 of 1'), digest('DiffID 1 of 1')]
  const id = layerId(undefined, { by: 'diffid', digest: base })
  expect(world.entries).toMatchObject([
    { id, 'diff-digest': base, 'compressed-diff-digest': digest('base') },
    { id: layerId(id, { by: 'diffid', digest: top }), parent: id, 'diff-digest': top },
  ])
})

test('what no index describes is read whole where that is asked for, and then bears its DiffID; the rest stays lazy', async () => {
  const world = new World()
  const store = await world.show()
  const reference = world.push('1', [plain('base', LARGE), lazy('top')])
  world.tars.set(digest('base'), proven(diffId(0, '1').digest))
  expect((await list(store, reference)).listed).toEqual([])
  expect(world.fetched).toEqual([])
  const base = layerId(undefined, diffId(0, '1'))
  const top = layerId(base, toc('top'))
  expect((await list(store, reference, 'needed')).listed.map(({ id }) => id)).toEqual([base, top])
  expect(world.fetched).toEqual([digest('base')])
  expect(world.entries).toMatchObject([
    { id: base, 'diff-digest': diffId(0, '1').digest, 'diff-size': 7000, compression: 2 },
    { id: top, parent: base, 'toc-digest': digest('index of top') },
  ])
})

test('what is small and keeps lazy layers above it from being listed is read whole; what holds up nothing is the engine’s', async () => {
  const world = new World()
  const store = await world.show()
  const layers = [plain('base', 4 << 20), lazy('middle'), plain('upper', (4 << 20) + 1), lazy('top'), plain('last')]
  const reference = world.push('1', layers)
  world.tars.set(digest('base'), proven(diffId(0, '1').digest))
  world.tars.set(digest('upper'), proven(diffId(2, '1').digest))
  // together they are not small
  expect((await list(store, reference)).listed).toEqual([])
  expect(world.fetched).toEqual([])
  const smaller = world.push('1', [plain('base', (4 << 20) - 1), ...layers.slice(1)])
  const { listed, left } = await list(store, smaller)
  expect(listed.map((each) => each.digest)).toEqual(['base', 'middle', 'upper', 'top'].map(digest))
  expect(left).toEqual([digest('last')])
  expect(world.fetched).toEqual([digest('base'), digest('upper')])
  // what is here already takes no time
  const shared = [diffId(0, '1').digest, diffId(2, '1').digest]
  const here = [plain('base', (4 << 20) - 1), plain('upper', (4 << 20) + 1)]
  const more = world.push('2', [...here, plain('new', 4 << 20), lazy('top')], shared)
  world.tars.set(digest('new'), proven(diffId(2, '2').digest))
  expect(await list(store, more)).toMatchObject({ left: [] })
  expect(world.fetched.slice(2)).toEqual([digest('new')])
})

test('what needs no bytes is listed before small layers have come', async () => {
  const world = new World()
  world.parts.layers.prove = () => Promise.reject(Failure.timeout('the registry stands still'))
  const store = await world.show()
  const reference = world.push('1', [lazy('base'), plain('small'), lazy('top')])
  expect(await list(store, reference)).toMatchObject({ left: [digest('small'), digest('top')] })
  expect(world.versions).toHaveLength(1)
  expect(world.messages).toEqual([expect.stringContaining('stands still')])
})

test('a layer that was proven bears its DiffID in every image, and nothing is fetched for that', async () => {
  const world = new World()
  const store = await world.show()
  const [one, two] = [world.push('1', [lazy('base')]), world.push('2', [lazy('base'), lazy('top')])]
  const base = diffId(0, '1')
  world.tars.set(digest('base'), proven(base.digest))
  await list(store, one, 'all')
  const same = world.known.get(two) as ResolvedImage
  world.known.set(two, { ...same, config: { ...same.config, diffIds: [base.digest, digest('other')] } })
  const { listed } = await list(store, two)
  const id = layerId(undefined, base)
  expect(listed.map((each) => each.id)).toEqual([id, layerId(id, toc('top'))])
  expect(listed.map((each) => each.by)).toEqual(['diffid', 'index'])
})

test('an image that claims another DiffID than its layer was proven to have is left to the engine, believed or not', async () => {
  for (const trustsDiffIds of [trustNone, trustAll]) {
    const world = new World({ trustsDiffIds })
    const store = await world.show()
    world.verdicts.set(digest('evil'), proven(digest('DiffID of evil')))
    const { listed, why } = await list(store, world.push('attacker', [lazy('evil')]))
    expect(listed).toEqual([])
    expect(why).toMatch(/claims DiffID .* its bytes have/)
  }
})

test('a layer whose index shows another tree than its tar has is listed under no name', async () => {
  for (const trustsDiffIds of [trustNone, trustAll]) {
    const world = new World({ trustsDiffIds })
    const store = await world.show()
    world.tars.set(digest('evil'), refuted(diffId(0, '1').digest))
    const { listed, why } = await list(store, world.push('1', [lazy('evil')]), 'all')
    expect(listed).toEqual([])
    expect(why).toBe('it is quarantined: bin/sh differs')
  }
})

test('a layer that was quarantined keeps its place after a restart, without its files', async () => {
  const world = new World()
  const { listed } = await list(await world.show(), world.push('1', [lazy('evil'), lazy('top')]))
  const next = new World()
  for (const [reference, each] of world.known) next.known.set(reference, each)
  next.listed.push(...world.listed)
  next.broken.add(digest('evil'))
  next.verdicts.set(digest('evil'), refuted(diffId(0, '1').digest))
  await next.show()
  expect(next.entries.map(({ id }) => id)).toEqual(listed.map(({ id }) => id))
  expect(next.text(`overlay/${listed[0]?.id}/diff`)).toBe('')
  expect(next.covered).toEqual([`images/overlay/${listed[1]?.id}/diff`])
})

test('after a restart a layer bears the name that it bore, whatever was proven since', async () => {
  const world = new World()
  await list(await world.show(), world.push('1', [lazy('base'), lazy('top')]))
  const next = new World()
  for (const [reference, each] of world.known) next.known.set(reference, each)
  next.listed.push(...world.listed)
  next.verdicts.set(digest('base'), proven(diffId(0, '1').digest))
  const store = await next.show()
  expect(next.entries).toEqual(world.entries.map((each, i) => (i === 0 ? { ...each, 'diff-size': 7000 } : each)))
  await list(store, 'example.com/app:1')
  expect(next.entries).toHaveLength(4)
})

test('a tar-split file stands beside each layer, and is made when it is read', async () => {
  const made: unknown[] = []
  const world = new World({
    split: async ({ descriptor }, blob) => {
      made.push([descriptor.digest, blob.digest])
      return { fd: 7, close: async () => {} }
    },
  })
  const store = await world.show()
  const { listed } = await list(store, world.push('1', [lazy('base')]))
  const path = `/images/overlay-layers/${listed[0]?.id}.tar-split.gz`
  expect(world.files.get(path)).toBe(1)
  expect(made).toEqual([])
  expect(await store.late(world.nodeOf(path))).toMatchObject({ fd: 7 })
  expect(made).toEqual([[digest('base'), digest('base')]])
  expect([store.owns(world.nodeOf(path)), store.owns(1n)]).toEqual([true, false])
  await expect(store.late(1n)).rejects.toMatchObject({ code: 'missing' })
})

test('of two images with a layer in common, the first one says what its DiffID is; the chain of one that denies it ends there', async () => {
  const world = new World()
  const store = await world.show()
  const first = world.push('1', [lazy('base')])
  const second = world.push('2', [lazy('other'), lazy('base')])
  const third = world.push('3', [lazy('base'), lazy('top')])
  const outcomes = await Promise.all([first, second, third].map((each) => list(store, each)))
  const base = layerId(undefined, toc('base'))
  expect(world.entries.find(({ id }) => id === base)).toMatchObject({
    flags: { 'expected-layer-diffid': digest('DiffID 0 of 1') },
  })
  // on another parent it is another layer
  expect(outcomes.map(({ left }) => left)).toEqual([[], [], [digest('base'), digest('top')]])
  expect(outcomes[2]?.why).toContain(
    `its DiffID is ${digest('DiffID 0 of 1')} there and ${digest('DiffID 0 of 3')} here`,
  )
  expect(world.entries).toHaveLength(3)
  // what was listed once is, after a restart
  world.listed.push({ reference: third, manifest: digest('3'), by: ['index', 'index'] })
  const next = world.restarted()
  await next.show()
  expect(next.entries.map(({ id }) => id)).toContain(layerId(base, toc('top')))
})

test.each<[string, Partial<Descriptor>, RegExp]>([
  [
    'another size of its tar',
    { annotations: { ...lazy('base').annotations, [TAR_SIZE]: '5001' } },
    /size of its tar is 5000 there and 5001 here/,
  ],
  ['another blob', { digest: digest('another blob') }, /its blob is/],
  ['another size of its blob', { size: 1235 }, /1234 there and 1235 here/],
])('an image that claims %s for a listed layer is not given the other’s entry', async (_, more, why) => {
  const world = new World()
  const store = await world.show()
  const shared = [digest('DiffID of base')]
  await list(store, world.push('1', [lazy('base')], shared))
  const outcome = await list(store, world.push('2', [lazy('base', more), lazy('top')], shared))
  expect(outcome).toMatchObject({ listed: [], why: expect.stringMatching(why) })
  expect(world.entries).toHaveLength(1)
})

test('of a layer that bears its DiffID the blob counts, not a size that is known exactly since', async () => {
  const world = new World({ trustsDiffIds: trustAll })
  const store = await world.show()
  const reference = world.push('1', [lazy('base')])
  await list(store, reference)
  world.verdicts.set(digest('base'), proven(diffId(0, '1').digest))
  expect(await list(store, reference)).toMatchObject({ left: [] })
  const other = await list(store, world.push('2', [lazy('other')], [diffId(0, '1').digest]))
  expect(other).toMatchObject({ listed: [], why: expect.stringMatching(/its blob is/) })
  // and when that is proven, too, they are one tar
  world.verdicts.set(digest('another'), proven(diffId(0, '1').digest))
  expect(await list(store, world.push('3', [lazy('another')], [diffId(0, '1').digest]))).toMatchObject({ left: [] })
  // which engines find by each
  expect(world.entries.map((each) => each['compressed-diff-digest'])).toEqual([digest('base'), digest('another')])
})

test('one tar in several blobs is found by each of them, below what is above it, now and after a restart', async () => {
  const world = new World()
  const store = await world.show()
  const tars = [digest('tar of base'), digest('tar of top')] as const
  for (const each of ['gzip', 'best', 'zstd']) world.verdicts.set(digest(each), proven(tars[0]))
  for (const each of ['top', 'top, smaller']) world.verdicts.set(digest(each), proven(tars[1]))
  world.verdicts.set(tars[0], proven(tars[0]))
  const push = (tag: string, ...layers: Descriptor[]) => world.push(tag, layers, tars.slice(0, layers.length))
  const first = await list(store, push('1', plain('gzip'), plain('top')))
  const [base, top] = first.listed.map(({ id }) => id)
  const second = await list(store, push('2', plain('best'), plain('top, smaller')))
  const third = await list(store, push('3', plain('zstd'), plain('top')))
  // the tar itself is found by its DiffID
  const fourth = await list(store, push('4', { ...plain('x'), digest: tars[0] }))
  const ids = (outcome: typeof first) => outcome.listed.map(({ id }) => id)
  for (const each of [first, second, third]) expect(ids(each)).toEqual([base, top])
  expect(ids(fourth)).toEqual([base])
  const entries = (from: World) => from.entries.map((each) => [each['compressed-diff-digest'], each['diff-digest']])
  const expected = ['gzip', 'best', 'zstd'].map((each) => [digest(each), tars[0]])
  expected.push(...['top', 'top, smaller'].map((each) => [digest(each), tars[1]]))
  expect(entries(world).sort()).toEqual(expected.sort())
  for (const { id, parent, 'diff-digest': tar } of world.entries) {
    expect(parent).toBe(tar === tars[0] ? undefined : base)
    expect(world.text(`overlay/${id}/lower`)).toBe(tar === tars[0] ? undefined : `l/${linkName(base as string)}`)
    expect(world.files.get(`/images/overlay/${id}/diff`)).toEqual(expect.any(Number))
    expect(world.covered).toContain(`images/overlay/${id}/diff`)
  }
  const again = world.versions.length
  await list(store, 'example.com/app:2')
  expect(world.versions.length).toBe(again)
  const next = world.restarted()
  await next.show()
  expect(entries(next).sort()).toEqual(expected.sort())
  expect(new Set(next.entries.map(({ id }) => id))).toEqual(new Set(world.entries.map(({ id }) => id)))
})

test('a blob that was only believed, or lies, gets no entry beside one that is proven', async () => {
  const world = new World({ trustsDiffIds: trustAll })
  const store = await world.show()
  const tar = digest('tar')
  world.verdicts.set(digest('bears'), proven(tar))
  await list(store, world.push('1', [plain('bears')], [tar]))
  await list(store, world.push('2', [lazy('claims')], [tar]))
  expect(world.entries).toHaveLength(1)
  world.verdicts.set(digest('other'), proven(tar))
  await list(store, world.push('3', [lazy('other')], [tar]))
  expect(world.entries).toHaveLength(2)
  const id = world.entries[1]?.id
  world.refute(lazy('other'))
  expect(world.files.get(`/images/overlay/${id}/diff`)).toEqual(new Uint8Array())
})

test('whole layers are fetched from where they were listed last, and from the others when that fails', async () => {
  const asked: string[] = []
  const away = new Set<string>()
  const world = new World({
    split: async (_, blob) => {
      const { from } = blob as unknown as { from: string }
      asked.push(from)
      if (away.has(from)) throw Failure.unavailable(`${from} is away`)
      return { fd: 7, close: async () => {} }
    },
  })
  const store = await world.show()
  for (const tag of ['1', '2', '3', '4', '5', '2']) {
    const reference = world.push(tag, [lazy('base')], [digest('DiffID of base')], 'all')
    const made = world.known.get(reference) as ResolvedImage
    const blob = world.sources.get(tag) ?? ({ ...made.blob(lazy('base')), from: tag } as unknown as StoredBlob)
    world.sources.set(tag, blob)
    world.known.set(reference, { ...made, blob: () => blob })
    await list(store, reference)
  }
  const split = world.nodeOf(`/images/overlay-layers/${layerId(undefined, toc('base'))}.tar-split.gz`)
  expect(await store.late(split)).toMatchObject({ fd: 7 })
  expect(asked.splice(0)).toEqual(['2'])
  for (const tag of ['2', '5']) away.add(tag)
  expect(await store.late(split)).toMatchObject({ fd: 7 })
  expect(asked.splice(0)).toEqual(['2', '5', '4'])
  for (const tag of ['1', '3', '4']) away.add(tag)
  await expect(store.late(split)).rejects.toThrow('2 is away')
  expect(asked).toEqual(['2', '5', '4', '3'])
})

test('a layer that is found to lie loses its files at once, wherever it is listed, and keeps its entries', async () => {
  const world = new World()
  const store = await world.show()
  const evil = lazy('evil')
  const one = await list(store, world.push('1', [evil, lazy('top')]))
  const two = await list(store, world.push('2', [lazy('base'), evil]))
  const before = world.text('overlay-layers/layers.json')
  const ids = [one.listed[0]?.id, two.listed[1]?.id]
  const others = [one.listed[1]?.id, two.listed[0]?.id]
  world.refute(evil)
  for (const id of ids) expect(world.files.get(`/images/overlay/${id}/diff`)).toEqual(new Uint8Array())
  for (const id of others) expect(world.files.get(`/images/overlay/${id}/diff`)).toEqual(expect.any(Number))
  expect(world.uncovered).toEqual(ids.map((id) => `images/overlay/${id}/diff`))
  expect(world.text('overlay-layers/layers.json')).toBe(before)
  const split = world.nodeOf(`/images/overlay-layers/${ids[0]}.tar-split.gz`)
  await expect(store.late(split)).rejects.toMatchObject({ code: 'corrupt', message: 'it is quarantined' })
})

test('another blob of the same tree loses nothing', async () => {
  const world = new World()
  const store = await world.show()
  const { listed } = await list(store, world.push('1', [lazy('good')]))
  world.quarantine.add({ blob: digest('evil'), tree: treeOf(digest('good')) }, refuted(digest('x')) as Refutation)
  expect(world.files.get(`/images/overlay/${listed[0]?.id}/diff`)).toEqual(expect.any(Number))
  expect(world.uncovered).toEqual([])
})

test('a verdict that falls while a layer is being listed keeps its files from being shown', async () => {
  for (const when of ['attached', 'kept', 'opened'] as const) {
    const evil = lazy('evil')
    const world: World = new World({
      attach: async () => {
        if (when === 'attached') world.refute(evil)
        return 7
      },
      release: () => {},
      listings: {
        keep: async () => {
          if (when === 'kept') world.refute(evil)
        },
        all: async () => [],
        forget: async () => {},
      },
      trustsDiffIds: async () => {
        if (when === 'opened') world.refute(evil)
        world.verdicts.clear() // as long as it is not on disk
        return 'no'
      },
    })
    const store = await world.show()
    const outcome = await list(store, world.push('1', [evil]))
    expect([...world.files].filter(([path, what]) => path.endsWith('/diff') && typeof what === 'number')).toEqual([])
    expect(world.covered).toEqual([])
    if (when === 'opened') expect(outcome).toMatchObject({ listed: [], why: expect.stringContaining('quarantined') })
  }
})

test('a liar does not keep its name from whoever it belongs to, now and after a restart', async () => {
  const world = new World({ trustsDiffIds: trustAll })
  const store = await world.show()
  const [evil, good] = [lazy('evil'), lazy('good')]
  const stolen = diffId(0, 'victim').digest
  const { listed } = await list(store, world.push('liar', [evil], [stolen]))
  const victim = world.push('victim', [good])
  expect(await list(store, victim)).toMatchObject({ listed: [], why: expect.stringContaining('its blob is') })
  world.refute(evil)
  world.broken.add(evil.digest)
  expect(await list(store, victim)).toMatchObject({ left: [] })
  const id = listed[0]?.id as string
  expect(world.entries).toMatchObject([{ id, 'compressed-diff-digest': good.digest }])
  expect(world.files.get(`/images/overlay/${id}/diff`)).toEqual(expect.any(Number))
  expect(world.covered.at(-1)).toBe(`images/overlay/${id}/diff`)
  const next: World = world.restarted({
    trustsDiffIds: trustAll,
    listings: {
      ...world.parts.listings,
      // the liar is ready last
      keep: async ({ reference }) => {
        for (let i = 0; i < 50 && reference.endsWith('liar'); i++) await undefined
      },
    },
  })
  await next.show()
  expect(next.entries).toEqual(world.entries)
  expect(next.files.get(`/images/overlay/${id}/diff`)).toEqual(expect.any(Number))
})

test('who was only believed does not keep a name from whoever is proven to bear it, now and after a restart', async () => {
  const world = new World({ trustsDiffIds: trustAll })
  const store = await world.show()
  const [claims, bears] = [lazy('claims'), lazy('bears')]
  const { listed } = await list(store, world.push('thief', [claims], [diffId(0, 'victim').digest]))
  const diff = `/images/overlay/${listed[0]?.id}/diff`
  world.verdicts.set(bears.digest, proven(diffId(0, 'victim').digest))
  expect(await list(store, world.push('victim', [bears]))).toMatchObject({ left: [] })
  expect(world.uncovered).toEqual([diff.slice(1)])
  expect(world.entries).toMatchObject([{ id: listed[0]?.id, 'compressed-diff-digest': bears.digest }])
  expect(world.files.get(diff)).toEqual(expect.any(Number))
  const next = world.restarted({ trustsDiffIds: trustAll })
  await next.show()
  expect(next.entries).toEqual(world.entries)
})

test('what an engine would take by its ID, though it has lost its files, is fetched for whoever has a right to it', async () => {
  const world = new World({ trustsDiffIds: trustAll })
  const store = await world.show()
  const evil = lazy('evil')
  const victim = plain('victim')
  await list(store, world.push('evil', [evil, lazy('above')], [diffId(0, 'victim').digest]))
  world.refute(evil)
  world.tars.set(victim.digest, proven(diffId(0, 'victim').digest))
  const small = world.push('victim', [victim])
  expect(await list(store, small, 'small')).toMatchObject({ left: [] })
  expect(world.fetched).toEqual([victim.digest])
  expect(world.entries[0]).toMatchObject({ 'compressed-diff-digest': victim.digest })
  // not for others, nor where it is too large to wait for
  expect(await list(store, world.push('other', [plain('other')]), 'small')).toMatchObject({ listed: [] })
  world.refute(victim)
  const large = plain('large', 257 << 20)
  expect(await list(store, world.push('large', [large], [diffId(0, 'victim').digest]), 'small')).toMatchObject({
    listed: [],
  })
  expect(world.fetched).toEqual([victim.digest])
})

test('whoever is proven takes a name also from another tree of the same blob', async () => {
  const world = new World({ trustsDiffIds: trustAll })
  const store = await world.show()
  const honest = lazy('base')
  const other = lazy('base', { annotations: { ...honest.annotations, [BUILT_OF]: digest('another index') } })
  await list(store, world.push('believed', [other], [diffId(0, 'victim').digest]))
  world.verdicts.set(honest.digest, proven(diffId(0, 'victim').digest))
  expect(await list(store, world.push('victim', [honest]))).toMatchObject({ left: [] })
  expect(world.uncovered).toHaveLength(1)
  // and neither believed one is given the other's files
  expect(await list(store, 'example.com/app:believed')).toMatchObject({ why: expect.stringContaining('its tree is') })
})

test('a name that is taken while its owner is about to be shown is shown as the new owner’s, below what is above it', async () => {
  const world = new World({ trustsDiffIds: trustAll })
  const store = await world.show()
  const id = layerId(undefined, diffId(0, 'victim'))
  await list(store, world.push('first', [lazy('first')]))
  world.verdicts.set(digest('bears'), proven(diffId(0, 'victim').digest))
  const thief = list(store, world.push('thief', [lazy('claims'), lazy('above')], [diffId(0, 'victim').digest]))
  while (world.listed.length < 2) await new Promise(setImmediate)
  // it waits for the next version of the list
  expect(world.entries).toHaveLength(1)
  await Promise.all([thief, list(store, world.push('victim', [lazy('bears')]))])
  expect(world.entries.slice(1).map((each) => [each.id, each.parent])).toEqual([
    [id, undefined],
    [expect.any(String), id],
  ])
  expect(world.entries[1]).toMatchObject({ 'compressed-diff-digest': digest('bears') })
  expect(world.uncovered).toEqual([])
})

test('an image that cannot be kept takes nothing from another that has a layer in common with it', async () => {
  const before = Promise.withResolvers<void>()
  const world: World = new World({
    listings: {
      keep: async ({ reference }) => {
        await before.promise
        if (reference.endsWith(':2')) throw Failure.system('the disk is full')
      },
      all: async () => [],
      forget: async () => {},
    },
  })
  const store = await world.show()
  const shared = [digest('DiffID of base')]
  const one = list(store, world.push('1', [lazy('base'), lazy('top')], shared))
  const two = list(store, world.push('2', [lazy('base'), lazy('other')], shared))
  before.resolve()
  await expect(two).rejects.toMatchObject({ code: 'system' })
  expect(await one).toMatchObject({ left: [] })
  expect(world.entries.map((each) => each['toc-digest'])).toEqual([digest('index of base'), digest('index of top')])
})

test('when none of two images that have a layer in common can be kept, nobody owns it; a name that was taken goes back', async () => {
  let isFull = false
  const world: World = new World({
    trustsDiffIds: trustAll,
    listings: {
      keep: async (listed) => {
        await undefined
        if (isFull) throw Failure.system('the disk is full')
        world.listed.push(listed)
      },
      all: async () => [],
      forget: async () => {},
    },
  })
  const store = await world.show()
  const thief = world.push('thief', [lazy('claims')], [diffId(0, 'victim').digest])
  await list(store, thief)
  isFull = true
  const shared = [digest('DiffID of base')]
  const both = ['1', '2'].map((tag) => list(store, world.push(tag, [lazy('base'), lazy(tag)], shared)))
  for (const each of await Promise.allSettled(both)) expect(each.status).toBe('rejected')
  world.verdicts.set(digest('bears'), proven(diffId(0, 'victim').digest))
  await expect(list(store, world.push('victim', [lazy('bears')]))).rejects.toMatchObject({ code: 'system' })
  isFull = false
  expect(await list(store, thief)).toMatchObject({ left: [] })
  expect(world.entries).toMatchObject([{ 'compressed-diff-digest': digest('claims') }])
  // another blob than the two had
  expect(await list(store, world.push('3', [lazy('another')], shared))).toMatchObject({ left: [] })
})

test('a layer that is withdrawn while its heir is being kept is empty until the list says whose it is', async () => {
  const kept = Promise.withResolvers<void>()
  const world: World = new World({
    trustsDiffIds: trustAll,
    listings: {
      keep: async ({ reference }) => (reference.endsWith('victim') ? await kept.promise : undefined),
      all: async () => [],
      forget: async () => {},
    },
  })
  const store = await world.show()
  const evil = lazy('evil')
  const { listed } = await list(store, world.push('thief', [evil], [diffId(0, 'victim').digest]))
  const diff = `/images/overlay/${listed[0]?.id}/diff`
  world.verdicts.set(digest('bears'), proven(diffId(0, 'victim').digest))
  const victim = list(store, world.push('victim', [lazy('bears')]))
  await new Promise(setImmediate)
  world.refute(evil)
  expect(world.files.get(diff)).toEqual(new Uint8Array())
  kept.resolve()
  expect(await victim).toMatchObject({ left: [] })
  expect(world.files.get(diff)).toEqual(expect.any(Number))
  expect(world.entries).toMatchObject([{ 'compressed-diff-digest': digest('bears') }])
})

test('who takes a name brings its own tar-split, of the tar that the name says', async () => {
  const world = new World({
    trustsDiffIds: trustAll,
    split: async ({ descriptor }) => ({ fd: descriptor.digest === digest('bears') ? 1 : 2, close: async () => {} }),
  })
  const store = await world.show()
  const { listed } = await list(store, world.push('thief', [lazy('claims')], [diffId(0, 'victim').digest]))
  const path = `/images/overlay-layers/${listed[0]?.id}.tar-split.gz`
  const thiefs = world.nodeOf(path)
  world.verdicts.set(digest('claims'), proven(digest('its own tar')))
  await expect(store.late(thiefs)).rejects.toMatchObject({ code: 'corrupt' })
  world.verdicts.delete(digest('claims'))
  world.verdicts.set(digest('bears'), proven(diffId(0, 'victim').digest))
  await list(store, world.push('victim', [lazy('bears')]))
  expect(world.nodeOf(path)).not.toBe(thiefs)
  expect(await store.late(world.nodeOf(path))).toMatchObject({ fd: 1 })
})

test('a tag that moves leaves what it was listed', async () => {
  const world = new World()
  const store = await world.show()
  await list(store, world.push('1', [lazy('old')]))
  const moved = image('other', [lazy('new')])
  world.known.set('example.com/app:1', moved)
  await list(store, 'example.com/app:1')
  expect(world.entries.map((each) => each['toc-digest'])).toEqual([digest('index of old'), digest('index of new')])
})

test('after a restart everything is listed again, without asking anybody', async () => {
  const world = new World()
  const before = await world.show()
  const shared = [digest('DiffID of base')]
  await list(before, world.push('1', [lazy('base'), lazy('top')], shared))
  await list(before, world.push('2', [lazy('base'), lazy('other'), plain('plain')], shared))
  const next = new World()
  for (const [reference, each] of world.known) next.known.set(reference, each)
  next.listed.push(...world.listed)
  await next.show()
  expect(next.resolved).toEqual([])
  expect(next.entries.sort(byId)).toEqual(world.entries.sort(byId))
  expect(next.versions.length).toBe(1)
  expect(next.covered.length).toBeGreaterThanOrEqual(3)
})

test('after a restart the same list is the same version, and another one a later version, whatever the clock says', async () => {
  const world = new World()
  const store = await world.show()
  await list(store, world.push('1', [lazy('base')]))
  await list(store, world.push('2', [lazy('other')]))
  const [last] = world.kept.slice(-1)
  if (last === undefined) throw new Error('nothing was kept')
  const [shown, bytes] = last
  const restarted = async (version: bigint, contents: Digest) => {
    const next = world.restarted({
      versions: { restored: { version, contents }, keep: () => {}, close: async () => {} },
    })
    return { next, store: await next.show() }
  }
  const same = await restarted(shown, digestOf(bytes))
  expect(same.next.versions).toEqual(world.versions.slice(-1))
  await list(same.store, same.next.push('3', [lazy('more')]))
  expect(same.next.versions[1]?.mtime).toBeGreaterThan(shown)
  const ahead = shown + 10n ** 18n // another clock's
  const { next } = await restarted(ahead, digest('another list'))
  expect(next.versions.map(({ mtime }) => mtime)).toEqual([ahead + 1n])
  expect((await restarted(ahead, digestOf(bytes))).next.versions.map(({ mtime }) => mtime)).toEqual([ahead])
})

test('a tar-split file is the same file after a restart, also of a layer that took its name from another', async () => {
  const world = new World({ trustsDiffIds: trustAll })
  const store = await world.show()
  const { listed } = await list(store, world.push('thief', [lazy('claims')], [diffId(0, 'victim').digest]))
  const path = `/images/overlay-layers/${listed[0]?.id}.tar-split.gz`
  const thiefs = world.nodeOf(path)
  world.verdicts.set(digest('bears'), proven(diffId(0, 'victim').digest))
  await list(store, world.push('victim', [lazy('bears')]))
  const next = world.restarted({ trustsDiffIds: trustAll })
  await next.show()
  expect(next.nodeOf(path)).toBe(world.nodeOf(path))
  expect(next.nodeOf(path)).not.toBe(thiefs)
})

test('what cannot be listed again is named, and keeps nothing else from it', async () => {
  const world = new World()
  const before = await world.show()
  const lost = world.push('1', [lazy('base')])
  await list(before, lost)
  await list(before, world.push('2', [lazy('other')]))
  const next = new World()
  next.known.set('example.com/app:2', world.known.get('example.com/app:2') as ResolvedImage)
  next.listed.push(...world.listed)
  await next.show()
  expect(next.entries.map((each) => each['toc-digest'])).toEqual([digest('index of other')])
  expect(next.messages).toEqual([expect.stringContaining(`${lost}: its layers are not listed again`)])
})

test('an image that cannot be attached again keeps no other from it, nor the agent from starting', async () => {
  const world = new World()
  const before = await world.show()
  await list(before, world.push('1', [lazy('base')]))
  await list(before, world.push('2', [lazy('other')]))
  const next = new World({
    attach: async ({ descriptor }) => {
      if (descriptor.digest === digest('base')) throw Failure.corrupt('its image on disk is damaged')
      return 1
    },
  })
  for (const [reference, each] of world.known) next.known.set(reference, each)
  next.listed.push(...world.listed)
  await next.show()
  expect(next.entries.map((each) => each['toc-digest'])).toEqual([digest('index of other')])
  expect(next.messages).toEqual([expect.stringContaining('app:1: its layers are not listed again')])
})

test('an image that cannot be listed makes no claims', async () => {
  const world: World = new World({
    listings: {
      keep: async ({ reference }) => {
        if (reference.endsWith(':1')) throw Failure.system('the disk is full')
      },
      all: async () => [],
      forget: async () => {},
    },
  })
  const store = await world.show()
  await expect(list(store, world.push('1', [lazy('base')], [], 'one'))).rejects.toMatchObject({ code: 'system' })
  expect(await list(store, world.push('2', [lazy('base')], [], 'one'))).toMatchObject({ left: [] })
  expect(world.entries).toMatchObject([{ flags: { 'expected-layer-diffid': digest('DiffID 0 of 2') } }])
})

test('claims that were believed once are not listed by an agent that believes none; indexes are by one that does', async () => {
  const believing = new World({ trustsDiffIds: trustAll })
  await list(await believing.show(), believing.push('1', [lazy('base')]))
  const proven = new World()
  for (const [reference, each] of believing.known) proven.known.set(reference, each)
  proven.listed.push(...believing.listed)
  const store = await proven.show()
  expect(proven.versions).toEqual([])
  expect(proven.messages).toEqual([expect.stringContaining('only claimed')])
  await list(store, 'example.com/app:1')
  const again = new World({ trustsDiffIds: trustAll })
  for (const [reference, each] of believing.known) again.known.set(reference, each)
  again.listed.push(...proven.listed)
  await again.show()
  expect(again.entries.map((each) => Boolean(each['toc-digest'])).sort()).toEqual([false, true])
})

test('five thousand layers are listed again in one version', async () => {
  const world = new World()
  for (let i = 0; i < 100; i++) {
    const reference = world.push(
      `${i}`,
      Array.from({ length: 50 }, (_, j) => lazy(`layer ${i} ${j}`)),
    )
    world.listed.push({ reference, manifest: digest(`${i}`), by: Array<'index'>(50).fill('index') })
  }
  const store = await world.show()
  expect(store.size).toBe(5000)
  expect(world.versions.length).toBe(1)
})

test('there is an end to how many are listed', async () => {
  const world = new World()
  for (let i = 0; i < 100; i++) {
    const reference = world.push(
      `${i}`,
      Array.from({ length: 100 }, (_, j) => lazy(`layer ${i} ${j}`)),
    )
    world.listed.push({ reference, manifest: digest(`${i}`), by: Array<'index'>(100).fill('index') })
  }
  const store = await world.show()
  expect(store.size).toBe(10_000)
  const outcome = await list(
    store,
    world.push('more', [lazy('layer 0 0'), lazy('one too many')], [diffId(0, '0').digest]),
  )
  expect(outcome).toMatchObject({ left: [digest('one too many')], why: expect.stringContaining('10000 layers') })
})

test('when there are many, what no engine uses is forgotten at the end', async () => {
  const world = new World({
    inUse: async (layers) => {
      const all = [...layers]
      expect(all).toHaveLength(9001)
      const top = all[99] as (typeof all)[number]
      expect(top.parent).toBe(all[98]?.id)
      return new Set([top.id])
    },
  })
  for (let i = 0; i < 90; i++) {
    const layers = Array.from({ length: 100 }, (_, j) => lazy(`layer ${i} ${j}`))
    world.listed.push({
      reference: world.push(`${i}`, layers),
      manifest: digest(`${i}`),
      by: Array<'index'>(100).fill('index'),
    })
  }
  const recent = { reference: world.push('new', [lazy('new')]), manifest: digest('new'), askedAt: Date.now() }
  world.listed.push({ ...recent, by: ['index'] })
  const store = await world.show()
  expect(world.forgotten).toEqual([])
  await store.end()
  expect(world.forgotten).toHaveLength(89)
  expect(world.forgotten).not.toContain('example.com/app:0')
  expect(world.forgotten).not.toContain('example.com/app:new')
  expect(store.size).toBe(9001)
})

function byId(a: Entry, b: Entry): number {
  return a.id < b.id ? -1 : 1
}

test('of what is opened to be listed, what is shown stays attached, once, and nothing else', async () => {
  const world = new World()
  const store = await world.show()
  const one = world.push('1', [lazy('base'), lazy('top')])
  const two = world.push('2', [lazy('base'), lazy('other'), plain('not lazy'), lazy('above')])
  const denies = world.push('3', [lazy('first'), lazy('base'), lazy('top')])
  await Promise.all([one, two, denies, one].map((each) => list(store, each)))
  await list(store, one)
  const shown = new Set([...world.files].flatMap(([path, what]) => (path.endsWith('/diff') ? [what] : [])))
  expect(new Set(world.attached.keys())).toEqual(shown)
  expect([...world.attached.values()].every((times) => times === 1)).toBe(true)
  await vi.waitFor(() => expect([...world.leases.held]).toEqual([]))
})
