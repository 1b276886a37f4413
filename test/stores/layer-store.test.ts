import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { type Digest, hex } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import type { LayerLease } from '../../src/layer/layer.ts'
import { trustAll } from '../../src/stores/identity.ts'
import { digest, encoded, FakeWorld, image, lazy, plain, proven, REFERENCE, refuted } from './store.ts'

const A = lazy('a')
const B = lazy('b')
const PLAIN = plain('plain')
const indexOf = (of: typeof A) => of.annotations[TOC_DIGEST] as Digest
const missing = { code: 'missing' }
const never = () => new Promise<never>(() => {})

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance', 'setInterval', 'clearInterval'] })
})
afterEach(() => {
  vi.useRealTimers()
})

/** A store whose registry has an image of A, B and a plain layer. */
function world(more: ConstructorParameters<typeof FakeWorld>[0] = {}): FakeWorld {
  const made = new FakeWorld(more)
  made.registry = image('one', [A, B, PLAIN])
  return made
}

test('an engine that asks by the digest of an index gets that identity, and no DiffID', async () => {
  const it = world()
  await it.look(indexOf(A))
  expect(it.info(indexOf(A))).toEqual({
    id: hex(A.digest),
    'compressed-size': 1234,
    'diff-size': 5000,
    compression: 2,
    'toc-digest': indexOf(A),
    flags: { 'expected-layer-diffid': digest('DiffID 0 of one') },
  })
})

test('where no layer is named by its index, none is found by it, and the files of those that were are there', async () => {
  const it = world({ byIndex: false })
  await expect(it.look(indexOf(A))).rejects.toMatchObject(missing)
  expect(it.messages).toEqual([expect.stringContaining('serve --diffid-only')])
  const before = world()
  await before.look(indexOf(A))
  const next = world({ byIndex: false })
  next.standIns.push(...before.standIns)
  await next.look(indexOf(A))
  const shown = [...next.files.keys()].filter((path) => path.includes(indexOf(A))).map((path) => path.split('/').at(-1))
  expect(shown).toEqual([indexOf(A), 'diff', 'blob'])
  next.refute(A)
  expect(next.files.get(`/layers/${encoded(REFERENCE)}/${indexOf(A)}/diff`)?.bytes).toHaveLength(0)
})

test('an engine that asks by the digest of a layer gets the DiffID, where claims are believed', async () => {
  const it = world({ trustsDiffIds: trustAll })
  await it.look(B.digest)
  expect(it.info(B.digest)).toEqual({
    id: hex(B.digest),
    'compressed-diff-digest': B.digest,
    'compressed-size': 1234,
    'diff-size': 5000,
    compression: 2,
    'diff-digest': digest('DiffID 1 of one'),
  })
})

test('where claims are not believed a layer is not shown under its own digest, and nothing is fetched of it', async () => {
  const it = world()
  await expect(it.look(A.digest)).rejects.toMatchObject(missing)
  expect(it.opened).toEqual([])
  expect(it.prefetched).toEqual([])
  expect(it.messages).toEqual([expect.stringMatching(/its identity is not proven: .*lazylayer pull --prove/)])
  await it.look(indexOf(A))
})

test('a layer that was proven is shown under its own digest; not where the image claims another DiffID for it', async () => {
  const it = world()
  it.verdicts.set(A.digest, proven(digest('DiffID 0 of one')))
  it.verdicts.set(B.digest, proven(digest('another DiffID')))
  await it.look(A.digest)
  expect(it.info(A.digest)).toMatchObject({ 'diff-digest': digest('DiffID 0 of one'), 'diff-size': 7000 })
  await expect(it.look(B.digest)).rejects.toMatchObject(missing)
  expect(it.messages).toContainEqual(expect.stringMatching(/claims DiffID .* its bytes have/))
})

test('a layer whose proof was lost is proven again when an engine looks for it that was shown it before, and no other is', async () => {
  for (const layer of [A, PLAIN]) {
    const diffId = digest(`DiffID ${layer === A ? 0 : 2} of one`)
    const it = world()
    it.tars.set(layer.digest, proven(diffId))
    await expect(it.look(layer.digest)).rejects.toMatchObject(missing)
    it.standIns.push(`layers/${encoded(REFERENCE)}/${layer.digest}`)
    await it.look(layer.digest)
    expect(it.info(layer.digest)).toMatchObject({ 'diff-digest': diffId })
  }
  const it = world()
  it.standIns.push(`layers/${encoded(REFERENCE)}/${A.digest}`)
  it.tars.set(A.digest, proven(digest('another DiffID')))
  await expect(it.look(A.digest)).rejects.toMatchObject(missing)
})

test('a layer that was found to lie is not shown by its index either, though it is open already', async () => {
  const it = world()
  await it.look(indexOf(A)) // opens all of the image
  it.verdicts.set(B.digest, refuted(digest('DiffID 1 of one')))
  await expect(it.look(indexOf(B))).rejects.toMatchObject(missing)
  expect(it.messages).toContainEqual(expect.stringMatching(/is quarantined/))
})

/** What is left of a quarantined layer. */
function expectEmpty(it: FakeWorld, layer: string): void {
  const left = [...it.files].filter(([path]) => `${path}/`.startsWith(`/layers/${layer}/`))
  expect(left.map(([path, { bytes }]) => [path, bytes])).toEqual([
    [`/layers/${layer}`, undefined],
    [`/layers/${layer}/diff`, new Uint8Array()],
  ])
}

test('a layer that is found to lie loses its files at once, in every reference and dialect, for good', async () => {
  const it = world({ trustsDiffIds: trustAll })
  const second = 'example.com/app:2'
  await it.look(indexOf(A))
  await it.look(A.digest)
  await it.look(indexOf(B))
  await it.look(indexOf(A), second)
  const [evil, good] = [
    [`${encoded(REFERENCE)}/${indexOf(A)}`, `${encoded(REFERENCE)}/${A.digest}`, `${encoded(second)}/${indexOf(A)}`],
    `${encoded(REFERENCE)}/${indexOf(B)}`,
  ]
  const blob = it.files.get(`/layers/${evil[0]}/blob`)?.node as bigint
  it.refute(A)
  expect(it.uncovered.sort()).toEqual(evil.map((each) => `layers/${each}/diff`).sort())
  await expect(it.store.late(blob)).rejects.toMatchObject(missing)
  for (let i = 0; i < 2; i++) {
    for (const each of evil) {
      expectEmpty(it, each)
      await it.stat(`layers/${each}/diff`)
      for (const name of ['info', 'blob', 'use']) {
        await expect(it.stat(`layers/${each}/${name}`)).rejects.toMatchObject(missing)
      }
    }
    await it.stat(`layers/${good}/info`)
  }
  // under a name that nobody has from us, it is not there
  const third = 'example.com/app:3'
  for (let i = 0; i < 2; i++) await expect(it.look(indexOf(A), third)).rejects.toMatchObject(missing)
  expect(it.messages.filter((each) => each.includes('quarantined'))).toEqual([
    expect.stringMatching(/app:3: layer .* is left to the engine: .* is quarantined/),
  ])
})

test('what was withdrawn in an earlier life is shown without its files where engines may have it, and nowhere else', async () => {
  const it = world()
  it.refute(A)
  it.standIns.push(`layers/${encoded(REFERENCE)}/${indexOf(A)}`)
  await Promise.all([it.look(indexOf(A)), it.look(indexOf(A))])
  expectEmpty(it, `${encoded(REFERENCE)}/${indexOf(A)}`)
  await it.look(indexOf(B))
  await expect(it.look(indexOf(A), 'example.com/app:2')).rejects.toMatchObject(missing)
})

test('another blob of the same tree stays where it is', async () => {
  const it = world()
  await it.look(indexOf(B))
  it.refute(A) // the fakes have one tree
  await it.look(indexOf(B))
  expect(it.files.has(`/layers/${encoded(REFERENCE)}/${indexOf(B)}/diff`)).toBe(true)
  expect(it.uncovered).toEqual([])
})

test('a verdict that falls while a layer is looked up keeps it from being shown', async () => {
  const it: FakeWorld = world({
    attach: async () => {
      it.refute(A)
      return 100
    },
  })
  await it.look(indexOf(A))
  expectEmpty(it, `${encoded(REFERENCE)}/${indexOf(A)}`)
  expect(it.messages.filter((each) => each.includes('is quarantined'))).toHaveLength(1)
})

test('a layer without an index is shown once it was read whole', async () => {
  const it = world()
  await expect(it.look(PLAIN.digest)).rejects.toMatchObject(missing)
  it.verdicts.set(PLAIN.digest, proven(digest('DiffID 2 of one')))
  await it.look(PLAIN.digest)
  expect(it.info(PLAIN.digest)).toMatchObject({ 'diff-digest': digest('DiffID 2 of one') })
})

test('both dialects stand side by side', async () => {
  const it = world({ trustsDiffIds: trustAll })
  await it.look(A.digest)
  await it.look(indexOf(A))
  expect(it.info(A.digest)).toHaveProperty('diff-digest')
  expect(it.info(indexOf(A))).not.toHaveProperty('diff-digest')
  expect(it.opened).toHaveLength(2) // A and B once each
})

test('the directory of a layer holds diff, info and blob, and its stand-in lies below', async () => {
  const it = world()
  await it.look(indexOf(A))
  const at = `/layers/${encoded(REFERENCE)}/${indexOf(A)}`
  expect([...it.files.keys()].filter((each) => each.startsWith(at)).sort()).toEqual(
    ['', '/blob', '/diff', '/info'].map((each) => `${at}${each}`),
  )
  expect(it.files.get(`${at}/diff`)?.slot).toBe(101)
  expect(it.attached).toEqual([`${at}/diff`.slice(1)])
  expect(it.files.get(`${at}/blob`)?.size).toBe(1234)
  expect(it.standIns).toEqual([at.slice(1)])
})

test.each(['use', 'diff1'])('%s in a layer is not there, which resolves nothing and logs nothing', async (name) => {
  const it = world()
  await it.look(indexOf(A))
  const before = { resolved: [...it.resolved], messages: [...it.messages] }
  await expect(it.stat(`layers/${encoded(REFERENCE)}/${indexOf(A)}/${name}`)).rejects.toMatchObject(missing)
  expect({ resolved: it.resolved, messages: it.messages }).toEqual(before)
})

test('who looks into a layer while it is being put there is told to look again', async () => {
  const it = world()
  await it.look(indexOf(A))
  const node = it.files.get(`/layers/${encoded(REFERENCE)}/${indexOf(A)}`)?.node as bigint
  expect(await it.store.lookup(node, 'diff', 0)).toBeUndefined()
})

test('what is claimed of a shared layer is what this image claims, not another', async () => {
  const it = world()
  await it.look(indexOf(A))
  // as Layers does it: the layer that the other image opened
  it.opening.set(A.digest, async () => it.layer({ ...A, size: 99, annotations: { ...A.annotations } }))
  const reference = 'example.com/app:2'
  it.registry = image('two', [lazy('a', { size: 4321 })], reference)
  await it.look(indexOf(A), reference)
  expect(it.info(indexOf(A), reference)).toMatchObject({ 'compressed-size': 4321 })
  expect(it.files.get(`/layers/${encoded(reference)}/${indexOf(A)}/blob`)?.size).toBe(4321)
})

test('the size of a tar that no manifest tells is estimated', async () => {
  const it = world()
  const bare = lazy('a', { annotations: { [TOC_DIGEST]: indexOf(A) } })
  it.registry = image('one', [bare])
  await it.look(indexOf(A))
  expect(it.info(indexOf(A))).toMatchObject({ 'diff-size': 8192 })
})

test('the first lookup opens all layers at once, and what each wants first is fetched', async () => {
  const it = world()
  const held = Promise.withResolvers<LayerLease>()
  it.opening.set(A.digest, () => held.promise)
  const looking = it.look(indexOf(A))
  await vi.advanceTimersByTimeAsync(100)
  expect(it.opened).toEqual([A.digest, B.digest])
  expect(it.prefetched).toEqual([B.digest])
  held.resolve(it.layer(A))
  await looking
  await it.look(indexOf(B))
  expect(it.opened).toEqual([A.digest, B.digest])
  expect(it.prefetched).toEqual([B.digest, A.digest])
  expect(it.resolved).toEqual([REFERENCE])
})

test('what is kept on disk needs no registry', async () => {
  const it = world()
  it.kept = image('one', [A])
  it.registry = Failure.unavailable('away')
  await it.look(indexOf(A))
  expect(it.resolved).toEqual([])
})

test("a moved tag's new digest is found, though an older image is kept", async () => {
  const it = world()
  it.kept = image('one', [A])
  const moved = lazy('moved')
  it.registry = image('two', [moved])
  await it.look(indexOf(A))
  await it.look(indexOf(moved))
  expect(it.resolved).toEqual([REFERENCE])
  // and moved again, a while later
  const again = lazy('moved again')
  it.registry = image('three', [again])
  await vi.advanceTimersByTimeAsync(4000)
  await it.look(indexOf(again))
  expect(it.resolved).toEqual([REFERENCE, REFERENCE])
})

test('a digest that the image lacks is missing; the registry is asked once for many of them', async () => {
  const it = world()
  await it.look(indexOf(A))
  const lookups = Array.from({ length: 5 }, (_, i) => it.look(digest(`unknown ${i}`)))
  for (const each of await Promise.allSettled(lookups)) expect(each).toMatchObject({ reason: missing })
  expect(it.resolved).toEqual([REFERENCE])
  await vi.advanceTimersByTimeAsync(4000)
  const later = Array.from({ length: 5 }, (_, i) => it.look(digest(`unknown ${i}`)))
  for (const each of await Promise.allSettled(later)) expect(each).toMatchObject({ reason: missing })
  expect(it.resolved).toEqual([REFERENCE, REFERENCE])
})

test('lookups side by side resolve and open an image once', async () => {
  const it = world()
  await Promise.all([it.look(indexOf(A)), it.look(indexOf(B)), it.look(indexOf(A))])
  expect(it.resolved).toEqual([REFERENCE])
  expect(it.opened).toEqual([A.digest, B.digest])
})

test('a failure to resolve answers for the rest of a pull, and no longer', async () => {
  const it = world()
  const healthy = it.registry
  it.registry = Failure.unavailable('the registry is away')
  await expect(it.look(indexOf(A))).rejects.toMatchObject(missing)
  await expect(it.look(indexOf(B))).rejects.toMatchObject(missing)
  expect(it.resolved).toHaveLength(1)
  it.registry = healthy
  await expect(it.look(indexOf(A))).rejects.toMatchObject(missing)
  await vi.advanceTimersByTimeAsync(3100)
  await it.look(indexOf(A))
  expect(it.resolved).toHaveLength(2)
})

test('a layer that did not open is tried again after a while, and only that one', async () => {
  const it = world()
  it.opening.set(A.digest, () => Promise.reject(Failure.unavailable('the registry is away')))
  await expect(it.look(indexOf(A))).rejects.toMatchObject(missing)
  await expect(it.look(indexOf(A))).rejects.toMatchObject(missing)
  expect(it.opened).toEqual([A.digest, B.digest])
  it.opening.clear()
  await vi.advanceTimersByTimeAsync(3100)
  await it.look(indexOf(A))
  await it.look(indexOf(B))
  expect(it.opened).toEqual([A.digest, B.digest, A.digest])
})

test('why a layer is left to the engine is logged once, however often it is asked for', async () => {
  const it = world({ trustsDiffIds: trustAll })
  it.opening.set(B.digest, () => Promise.reject(Failure.corrupt('its index is damaged')))
  await it.look(A.digest)
  for (let i = 0; i < 3; i++) {
    await expect(it.look(PLAIN.digest)).rejects.toMatchObject(missing)
    await expect(it.look(B.digest)).rejects.toMatchObject(missing)
    await vi.advanceTimersByTimeAsync(4000)
  }
  expect(it.messages).toHaveLength(2)
  expect(it.messages).toEqual(
    expect.arrayContaining([
      expect.stringMatching(`^${REFERENCE}: layer ${PLAIN.digest} is left to the engine: it is not lazy: the manifest`),
      `${REFERENCE}: layer ${B.digest} is left to the engine: its index is damaged`,
    ]),
  )
})

test('a layer that nobody asks for is explained all the same', async () => {
  const it = world()
  await it.look(indexOf(A))
  await vi.advanceTimersByTimeAsync(1)
  expect(it.messages).toEqual([expect.stringContaining(`layer ${PLAIN.digest} is left to the engine: it is not lazy`)])
})

test('an engine is not kept waiting by what makes no progress; it goes on behind the answer', async () => {
  const it = world()
  const healthy = it.registry as ReturnType<typeof image>
  const held = Promise.withResolvers<typeof healthy>()
  it.registry = held.promise
  const started = performance.now()
  const looking = it.look(indexOf(A))
  const outcome = expect(looking).rejects.toMatchObject(missing)
  await vi.advanceTimersByTimeAsync(1900)
  await it.stat('layers') // not yet answered, and nothing else is held up
  await vi.advanceTimersByTimeAsync(400)
  await outcome
  expect(performance.now() - started).toBeLessThan(2400)
  expect(it.messages).toEqual([expect.stringMatching(/left to the engine: no progress for 2000 ms/)])
  held.resolve(healthy)
  await vi.advanceTimersByTimeAsync(1)
  await it.look(indexOf(A))
  expect(it.resolved).toEqual([REFERENCE])
})

test('an engine is not kept waiting for ever by what makes progress', async () => {
  const it = world()
  it.opening.set(A.digest, never)
  const outcome = expect(it.look(indexOf(A))).rejects.toMatchObject(missing)
  for (let at = 0; at <= 9500; at += 500) {
    it.progress++
    await vi.advanceTimersByTimeAsync(500)
  }
  expect(it.messages).not.toContainEqual(expect.stringContaining('not ready after'))
  await vi.advanceTimersByTimeAsync(500)
  await outcome
  expect(it.messages).toContainEqual(expect.stringMatching(/left to the engine: not ready after 10000 ms/))
})

test('a fault on the way is missing to the engine, and logged', async () => {
  const it = world({
    standIn: () => Promise.reject(Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })),
  })
  await expect(it.look(indexOf(A))).rejects.toMatchObject(missing)
  expect(it.messages).toContainEqual(expect.stringContaining('ENOSPC: no space left'))
  expect(it.attached).toEqual([])
})

test('a layer that could not be put into the mount can be later', async () => {
  let full = true
  const it: FakeWorld = world({
    async attach() {
      if (full) throw new Error('too many devices')
      return 7
    },
  })
  await expect(it.look(indexOf(A))).rejects.toMatchObject(missing)
  full = false
  await it.look(indexOf(A))
  expect(it.info(indexOf(A))).toHaveProperty('toc-digest')
})

test.each([
  ['what is no base64', 'layers/%%%'],
  ['what is no reference', `layers/${encoded('no reference!')}`],
  ['what is no digest', `layers/${encoded(REFERENCE)}/sha256:abc`],
  ['another directory beside a reference', `layers/${encoded(REFERENCE)}/pool`],
])('%s is not there, and nothing is resolved for it', async (_, path) => {
  const it = world()
  await expect(it.stat(path)).rejects.toMatchObject(missing)
  expect(it.resolved).toEqual([])
})

test('who asks too often finds what is known, and nothing is asked for; others are not hindered', async () => {
  const it = world({ trustsDiffIds: trustAll })
  await it.look(A.digest)
  it.uid = 1000
  await it.look(A.digest)
  await expect(it.look(B.digest)).rejects.toMatchObject(missing)
  await expect(it.look(A.digest, 'example.com/app:2')).rejects.toMatchObject(missing)
  expect(it.resolved).toEqual([REFERENCE])
  expect(it.attached).toHaveLength(1)
  it.uid = 1001
  await it.look(B.digest)
  it.uid = 1
  await it.look(A.digest, 'example.com/app:2')
})

const name = (tag: string) => encoded(`example.com/app:${tag}`)
const isThere = (it: FakeWorld, tag: string) => it.files.has(`/layers/${name(tag)}`)

test('references of which nothing is shown are few, and come back when they are asked for; others stay', async () => {
  const it = world()
  await it.look(indexOf(A))
  const first = it.files.get(`/layers/${encoded(REFERENCE)}`)
  for (let i = 0; i < 3_000; i++) await it.stat(`layers/${name(`no-${i}`)}`)
  expect(it.store.size).toEqual({ references: 1_001, layers: 1 })
  expect(isThere(it, 'no-2999')).toBe(true)
  expect(isThere(it, 'no-0')).toBe(false)
  await it.stat(`layers/${name('no-0')}`)
  expect(it.files.get(`/layers/${encoded(REFERENCE)}`)).toBe(first)
  await it.look(indexOf(B))
  await it.look(indexOf(A), 'example.com/app:2') // a pull goes on as ever
})

test('who asks for many references pushes out their own, not those of others', async () => {
  const it = world()
  await it.stat(`layers/${name('of-root')}`)
  it.uid = 1002
  for (let i = 0; i < 10; i++) await it.stat(`layers/${name(`of-another-${i}`)}`)
  it.uid = 1001
  for (let i = 0; i < 5_000; i++) await it.stat(`layers/${name(`flood-${i}`)}`)
  expect(isThere(it, 'of-root')).toBe(true)
  for (let i = 0; i < 10; i++) expect(isThere(it, `of-another-${i}`)).toBe(true)
  it.uid = 1
  for (let i = 0; i < 400; i++) await it.stat(`layers/${name(`of-root-${i}`)}`)
  expect(isThere(it, 'of-root')).toBe(true)
  expect(it.store.size.references).toBe(1_000)
})

test('a reference is kept while a layer is looked up in it, also when nobody waits any more', async () => {
  const it = world()
  const held = Promise.withResolvers<LayerLease>()
  it.opening.set(A.digest, () => held.promise)
  const looking = expect(it.look(indexOf(A))).rejects.toMatchObject(missing)
  await vi.advanceTimersByTimeAsync(3_000)
  await looking
  for (let i = 0; i < 2_000; i++) await it.stat(`layers/${name(`no-${i}`)}`)
  held.resolve(it.layer(A))
  await vi.waitFor(() => expect(it.store.size.layers).toBe(1))
  await it.look(indexOf(A))
})

/** So many layers of one image. */
function many(count: number, shownMax?: number) {
  const layers = Array.from({ length: count }, (_, i) => lazy(`layer ${i}`))
  const it = new FakeWorld({}, shownMax)
  it.registry = image('one', layers)
  return { it, layers }
}

const MINUTE = 60_000
const DAY = 24 * 60 * MINUTE

test('layers that nobody uses stay up to a bound, the one that was used last longest, and come back when they are looked for', async () => {
  const { it, layers } = many(510)
  for (const each of layers) {
    await it.look(indexOf(each))
    it.now++
  }
  const [first, second, third] = layers as [typeof A, typeof A, typeof A]
  const path = (of: typeof A) => `layers/${encoded(REFERENCE)}/${indexOf(of)}`
  it.used.add(`${path(second)}/diff`) // a container runs
  it.busy.add(it.files.get(`/${path(third)}/diff`)?.slot as number) // the kernel says so
  it.now += MINUTE
  await it.store.letGo()
  expect(it.store.size.layers).toBe(510) // whoever pulls has made no overlay yet
  it.now += 2 * MINUTE
  await it.store.letGo()
  expect(it.files.has(`/${path(first)}`)).toBe(false)
  expect(it.files.has(`/${path(second)}/info`)).toBe(true)
  expect(it.files.has(`/${path(third)}/info`)).toBe(true)
  expect(it.store.size.layers).toBe(502)
  expect(it.released).toHaveLength(8)
  const node = it.nodes.get(`/${path(first)}`)
  await it.look(indexOf(first))
  expect(it.files.get(`/${path(first)}`)?.node).toBe(node)
  // and what nobody came back for leaves altogether
  it.now += DAY + MINUTE
  await it.store.letGo()
  expect(it.store.size).toEqual({ references: 1, layers: 2 })
  it.used.clear()
  it.busy.clear()
  it.now += DAY + MINUTE
  await it.store.letGo()
  it.now += DAY + MINUTE
  await it.store.letGo()
  expect(it.store.size).toEqual({ references: 0, layers: 0 })
  expect([...it.files.keys()]).toEqual(['/layers'])
  await vi.waitFor(() => expect([...it.leases.held]).toEqual([]))
})

test('a layer whose image is being looked for when it is time to let go is shown all the same', async () => {
  const kept = Promise.withResolvers<undefined>()
  const it = world({ images: { kept: () => kept.promise, resolve: async () => image('one', [A]) } })
  const looking = it.look(indexOf(A))
  await vi.waitFor(() => expect(it.store.size.references).toBe(1))
  await Promise.resolve()
  it.now += 3 * MINUTE
  await it.store.letGo()
  kept.resolve(undefined)
  await looking
  expect(it.messages).toEqual([])
})

test('a layer that an engine takes into use while it is about to leave stays', async () => {
  const isFree = Promise.withResolvers<boolean>()
  const it = world({ isFree: () => isFree.promise })
  await it.look(indexOf(A))
  it.now += DAY + MINUTE
  const leaving = it.store.letGo()
  it.store.hint('create', it.files.get(`/layers/${encoded(REFERENCE)}/${indexOf(A)}`)?.node as bigint, 'use')
  isFree.resolve(true)
  await leaving
  expect(it.files.has(`/layers/${encoded(REFERENCE)}/${indexOf(A)}/diff`)).toBe(true)
  expect(it.released).toEqual([])
})

test('a layer that is withdrawn while it is about to leave is released once', async () => {
  const isFree = Promise.withResolvers<boolean>()
  const it = world({ isFree: () => isFree.promise })
  await it.look(indexOf(A))
  it.now += DAY + MINUTE
  const leaving = it.store.letGo()
  it.refute(A)
  isFree.resolve(true)
  await leaving
  expect(it.released).toHaveLength(1)
  expectEmpty(it, `${encoded(REFERENCE)}/${indexOf(A)}`)
})

test('where all layers that may be shown are in use, the rest is left to engines, which is said once, until there is room', async () => {
  const { it, layers } = many(7, 5)
  for (const each of layers.slice(0, 5)) {
    await it.look(indexOf(each))
    it.used.add(`layers/${encoded(REFERENCE)}/${indexOf(each)}/diff`)
  }
  const [one, two] = layers.slice(5) as [typeof A, typeof A]
  await expect(it.look(indexOf(one))).rejects.toMatchObject(missing)
  await expect(it.look(indexOf(two))).rejects.toMatchObject(missing)
  expect(it.messages.filter((each) => each.startsWith('5 layers are shown already'))).toHaveLength(1)
  it.used.clear()
  it.now += DAY + MINUTE
  await it.store.letGo()
  await it.look(indexOf(one))
})

test('a blob is fetched when it is read, for the image that it was asked of', async () => {
  const asked: unknown[] = []
  const it = world({
    wholeBlob: async (layer, blob) => {
      asked.push([layer.descriptor.digest, blob.digest])
      if (asked.length === 2) throw Failure.unavailable('away')
      return { fd: 77, close: async () => {} }
    },
  })
  await it.look(indexOf(A))
  const node = it.files.get(`/layers/${encoded(REFERENCE)}/${indexOf(A)}/blob`)?.node as bigint
  expect(asked).toEqual([])
  expect((await it.store.late(node)).fd).toBe(77)
  expect(asked).toEqual([[A.digest, A.digest]])
  await expect(it.store.late(node)).rejects.toMatchObject({ code: 'unavailable' })
  expect(it.messages).toContainEqual(`blob ${A.digest}: away`)
  await expect(it.store.late(1n)).rejects.toMatchObject(missing)
})

test('where layers are mounted in the kernel, info waits for that', async () => {
  const covered = Promise.withResolvers<void>()
  const paths: string[] = []
  const it = world({
    cover(_, path) {
      paths.push(path.join('/'))
      return covered.promise
    },
    fileOf: async (bytes) => ({ fd: bytes.length, close: async () => {} }),
  })
  await it.look(indexOf(A))
  const at = `/layers/${encoded(REFERENCE)}/${indexOf(A)}`
  expect(paths).toEqual([`${at}/diff`.slice(1)])
  const info = it.files.get(`${at}/info`)
  let given: number | undefined
  const reading = it.store.late(info?.node as bigint).then(({ fd }) => {
    given = fd
  })
  await vi.advanceTimersByTimeAsync(1)
  expect(given).toBeUndefined()
  covered.resolve()
  await reading
  expect(given).toBe(info?.size)
})

test('taking a layer into use and dropping it is told by its path; other hints say nothing', async () => {
  const it = new FakeWorld()
  it.kept = image('app', [A])
  await it.look(indexOf(A))
  const [reference, shown] = [`/layers/${encoded(REFERENCE)}`, `/layers/${encoded(REFERENCE)}/${indexOf(A)}`].map(
    (each) => it.files.get(each)?.node as bigint,
  ) as [bigint, bigint]
  it.store.hint('create', reference, 'use')
  it.store.hint('create', shown, 'other')
  it.store.hint('rmdir', 1n, 'layers')
  expect(it.hints).toEqual([])
  it.store.hint('create', shown, 'use')
  it.store.hint('rmdir', reference, indexOf(A))
  const path = `layers/${encoded(REFERENCE)}/${indexOf(A)}/diff`
  expect(it.hints).toEqual([`use ${path}`, `drop ${path}`])
})

test('who lost a DiffID to a proven layer shows that one’s files from then on, because an engine goes on to look there', async () => {
  const evil = lazy('evil')
  const good = lazy('good')
  const tar = digest('tar of good')
  const named = (name: string, layer: Descriptor) => {
    const made = image(name, [layer], `example.com/app:${name}`)
    return { ...made, config: { ...made.config, diffIds: [tar] } }
  }
  for (const order of [
    [evil, good],
    [good, evil],
  ]) {
    const it = new FakeWorld({ trustsDiffIds: trustAll }, undefined, true)
    it.tars.set(good.digest, proven(tar))
    it.tars.set(evil.digest, proven(digest('its own tar')))
    const diff = (layer: Descriptor) =>
      it.files.get(`/layers/${encoded(referenceOf(layer))}/${layer.digest}/diff`) ?? 'none'
    const referenceOf = (layer: Descriptor) => `example.com/app:${layer === evil ? 'evil' : 'good'}`
    for (const layer of order) {
      it.registry = named(layer === evil ? 'evil' : 'good', layer)
      await it.look(layer.digest, referenceOf(layer)).catch(() => {})
    }
    expect(diff(good)).toMatchObject({ slot: expect.any(Number) })
    if (order[0] === good) {
      expect(diff(evil)).toBe('none')
      continue
    }
    // the layer that was attached last, in the place of the one that was shown first
    expect(it.attached).toEqual(
      [evil, good, evil].map((each) => `layers/${encoded(referenceOf(each))}/${each.digest}/diff`),
    )
    expect([diff(evil), it.released]).toMatchObject([{ slot: 103 }, [101]])
    it.refute(good)
    expect([diff(good), diff(evil)]).toMatchObject([{ bytes: new Uint8Array() }, { bytes: new Uint8Array() }])
  }
})

test('a layer that lost a DiffID has no files, whoever looks, and is found again once it is proven', async () => {
  const tar = digest('tar')
  const named = (name: string, layer: Descriptor) => {
    const made = image(name, [layer], `example.com/app:${name}`)
    return { ...made, config: { ...made.config, diffIds: [tar] } }
  }
  const it = new FakeWorld({ trustsDiffIds: trustAll }, undefined, true)
  it.registry = named('first', A)
  await it.look(A.digest, 'example.com/app:first')
  it.registry = named('second', PLAIN)
  await expect(it.look(PLAIN.digest, 'example.com/app:second')).rejects.toMatchObject(missing)
  const diff = () => it.files.get(`/layers/${encoded('example.com/app:first')}/${A.digest}/diff`)
  expect([diff()?.bytes, it.released]).toEqual([new Uint8Array(), [101]])
  // an engine that looks again finds that, and not that it is missing, which would fail it as a whole
  await it.look(A.digest, 'example.com/app:first')
  it.tars.set(A.digest, proven(tar))
  it.guarded.idle()
  expect(diff()).toBeUndefined()
  await it.look(A.digest, 'example.com/app:first')
  expect(diff()?.slot).toBe(102)
})
