import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { FOOTER_BYTES, makeFooter, parseFooter } from '../../src/format/estargz/footer.ts'
import type { Blob, Range } from '../../src/image/blob.ts'
import { hex } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { openLayer, type ResolvedImage } from '../../src/layer/image.ts'
import type { StoredBlob } from '../../src/registry/source.ts'
import { READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'
import { OCI_LAYER } from '../fake/image.ts'
import { MemoryBlob, sourceOf } from '../format/memory-blob.ts'
import { unitOf } from '../format/unit.ts'
import { contents, lazyLayer, openCache, openFiles, posing } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'

/** A blob that answers as `read` says. */
function answering(blob: Blob, read: Blob['read']): Blob {
  return { digest: blob.digest, size: blob.size, read }
}

const fails: Blob['read'] = async () => {
  throw Failure.unavailable('the registry is away')
}

test('a layer is opened, and its files are what was put in', async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ 'etc/hostname': 'lazy\n', 'etc/motd': 'hello\n' })
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  expect(layer).toMatchObject({ format: 'estargz', indexDigest: made.descriptor.annotations[TOC_DIGEST] })
  expect(await contents(layer, 'etc/hostname')).toBe('lazy\n')
  expect(await contents(layer, 'etc/motd')).toBe('hello\n')
})

const STARTING = { early: async () => [] }

test('for a start, what an index wants first is asked for before the tree is there, and not again', async () => {
  const { layers } = await openCache(await folder())
  const files = { first: 'f'.repeat(9000), second: 's'.repeat(9000), rest: 'r'.repeat(300_000), last: 'l' }
  const made = await lazyLayer(files, { prioritized: ['first', 'second'], level: 0 })
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com', STARTING)
  expect(made.blob.ranges[1]).toEqual({ start: 0, end: expect.any(Number) })
  expect(await layer.prefetch()).toMatchObject({ ready: layer.chunks.first, failed: 0 })
  expect(layer.chunks.first).toBeGreaterThan(0)
  expect(made.blob.ranges).toHaveLength(2)
  expect(await contents(layer, 'second')).toBe(files.second)
  expect(made.blob.ranges).toHaveLength(2)
})

test('for a start, what is known to be wanted first is asked for with the index, and not again', async () => {
  const files = { a: 'a'.repeat(9000), b: 'b'.repeat(300_000), c: 'c'.repeat(9000), d: 'd'.repeat(300_000) }
  const made = await lazyLayer(files, { level: 0 })
  const known = await (await openCache(await folder())).layers.open(
    unitOf(made.descriptor),
    sourceOf(made.blob),
    'registry.example.com',
  )
  const [first, second] = [0, 2].map((chunk) => known.chunks.storedRange(chunk)) as [Range, Range]
  const wanted = [{ start: first.start, end: second.end }] // they are near each other
  made.blob.ranges.splice(0)
  const { layers } = await openCache(await folder())
  const starting = { early: async () => wanted }
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com', starting)
  expect(made.blob.ranges).toEqual(expect.arrayContaining(wanted))
  const asked = made.blob.ranges.length
  await layer.filler.fill([0, 2], 'prefetch')
  expect(made.blob.ranges).toHaveLength(asked)
  expect(await contents(layer, 'c')).toBe(files.c)
})

test('whoever only looks at a layer has nothing of it fetched but its index', async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ first: 'f', rest: 'r' }, { prioritized: ['first'] })
  await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  expect(made.blob.ranges).toHaveLength(1)
})

test('a layer that is open is opened again without reading anything', async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ a: 'one' })
  const again = await lazyLayer({ a: 'one' })
  const [first, second] = await Promise.all([
    layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com'),
    layers.open(unitOf(again.descriptor), sourceOf(again.blob), 'registry.example.com'),
  ])
  expect(second.slots).toBe(first.slots)
  expect([...made.blob.ranges, ...again.blob.ranges]).toHaveLength(1)
  const third = await layers.open(unitOf(again.descriptor), sourceOf(again.blob), 'registry.example.com')
  expect(third.slots).toBe(first.slots)
  expect([...made.blob.ranges, ...again.blob.ranges]).toHaveLength(1)
})

test('after a restart neither index nor chunks are read again', async () => {
  const dir = await folder()
  const made = await lazyLayer({ a: 'one', b: 'two' })
  const before = await openCache(dir)
  const layer = await before.layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  expect(await contents(layer, 'a')).toBe('one')
  await before.close()
  const read = made.blob.ranges.length
  const after = await openCache(dir)
  const known = await after.layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  expect(await contents(known, 'a')).toBe('one')
  expect(made.blob.ranges.length).toBe(read)
  expect(known).toMatchObject({ tree: layer.tree })
  expect(await known.numbersAs('here')).toEqual(await layer.numbersAs('here'))
})

test('what an earlier life stored is verified in the background, once, and fetched again only where it is damaged', async () => {
  const dir = await folder()
  const made = await lazyLayer({ a: 'one', b: 'two', c: 'three' })
  const before = await openCache(dir)
  const layer = await before.layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  const all = Array.from({ length: layer.chunks.length }, (_, i) => i)
  await layer.filler.fill(all, 'demand')
  await before.close()
  const path = join(dir, 'trees', hex(layer.tree), 'device')
  const device = await readFile(path)
  const at = device.indexOf('two')
  device[at] = (device[at] as number) ^ 1
  await writeFile(path, device)
  const read = made.blob.ranges.length

  const after = await openCache(dir)
  const known = await after.layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  expect([...(await known.slots.states())]).toEqual(all.map(() => READY_STORED))
  await Promise.all([known.reverify(), known.reverify()])
  expect([...(await known.slots.states())]).toEqual(all.map(() => READY_VERIFIED))
  expect(made.blob.ranges.length).toBe(read + 1)
  expect(await contents(known, 'b')).toBe('two')
})

test.each([['first'], ['second']])(
  'a layer whose digest another image claims for other bytes never shares a tree with it: the liar comes %s',
  async (liarComes) => {
    const dir = await folder()
    const { layers, close } = await openCache(dir)
    const victim = await lazyLayer({ 'bin/sh': 'a shell' })
    const other = await lazyLayer({ 'bin/sh': 'evil ha' })
    const claim: Descriptor = { ...other.descriptor, digest: victim.descriptor.digest }
    const openLiar = () => layers.open(unitOf(claim), sourceOf(posing(claim, other)), 'registry.example.com')
    const openVictim = () => layers.open(unitOf(victim.descriptor), sourceOf(victim.blob), 'registry.example.com')
    const opened =
      liarComes === 'first' ? [await openLiar(), await openVictim()] : [await openVictim(), await openLiar()].reverse()
    const [liar, honest] = opened as [Awaited<ReturnType<typeof openLiar>>, Awaited<ReturnType<typeof openVictim>>]
    expect(honest.tree).not.toBe(liar.tree)
    expect((await honest.numbersAs('here')).slot).not.toBe((await liar.numbersAs('here')).slot)
    expect(await contents(liar, 'bin/sh')).toBe('evil ha')
    expect(await contents(honest, 'bin/sh')).toBe('a shell')
    // nor does the cache mix them up
    await close()
    const later = await openCache(dir)
    const known = await later.layers.open(unitOf(victim.descriptor), sourceOf(victim.blob), 'registry.example.com')
    expect(await contents(known, 'bin/sh')).toBe('a shell')
  },
)

test('a layer whose digest and index another image claims with another size is read from its own blob', async () => {
  const { layers } = await openCache(await folder())
  const victim = await lazyLayer({ a: 'contents' })
  const { size } = victim.blob
  const bytes = new Uint8Array(await victim.blob.read({ start: 0, end: size }))
  victim.blob.ranges.length = 0
  const { tocOffset = 0 } = parseFooter(bytes.subarray(-FOOTER_BYTES), 'the layer')
  // junk in front of the very same table of contents
  const junk = new Uint8Array(100)
  const rest = bytes.subarray(tocOffset, size - FOOTER_BYTES)
  const forged = Buffer.concat([bytes.subarray(0, tocOffset), junk, rest, makeFooter(tocOffset + junk.length)])
  const claim: Descriptor = { ...victim.descriptor, size: forged.length }
  const liar = await layers.open(
    unitOf(claim),
    sourceOf(posing(claim, { descriptor: claim, blob: new MemoryBlob(forged) })),
    'registry.example.com',
  )
  const layer = await layers.open(unitOf(victim.descriptor), sourceOf(victim.blob), 'registry.example.com')
  expect(victim.blob.ranges).toHaveLength(1)
  expect(liar.chunks.blobs).toEqual([{ digest: victim.descriptor.digest, size: forged.length }])
  expect(layer.chunks.blobs).toEqual([{ digest: victim.descriptor.digest, size }])
  expect(layer.descriptor).toEqual(victim.descriptor)
})

test('an index that is not what the manifest says is refused, and nothing of it is kept', async () => {
  const dir = await folder()
  const { layers } = await openCache(dir)
  const victim = await lazyLayer({ 'bin/sh': 'a shell' })
  const other = await lazyLayer({ 'bin/sh': 'evil ha' })
  const claim: Descriptor = { ...victim.descriptor, size: other.descriptor.size }
  await expect(
    layers.open(unitOf(claim), sourceOf(posing(claim, other)), 'registry.example.com'),
  ).rejects.toMatchObject({
    code: 'corrupt',
  })
  expect(await readdir(join(dir, 'layers'))).toEqual([])
  expect(await readdir(join(dir, 'trees'))).toEqual([])
})

test('two layers with the same tree share device, number and filler', async () => {
  const { layers } = await openCache(await folder())
  const one = await lazyLayer({ a: 'same same same', b: 'bytes' })
  // the same table of contents over other stored bytes: the operating system in a gzip header means nothing
  const bytes = new Uint8Array(await one.blob.read({ start: 0, end: one.blob.size }))
  bytes[9] = (bytes[9] as number) ^ 1
  const blob = new MemoryBlob(bytes)
  const two = { descriptor: { ...one.descriptor, digest: blob.digest }, blob }
  expect(two.descriptor.digest).not.toBe(one.descriptor.digest)
  const [first, second] = await Promise.all([
    layers.open(unitOf(one.descriptor), sourceOf(one.blob), 'registry.example.com'),
    layers.open(unitOf(two.descriptor), sourceOf(two.blob), 'registry.example.com'),
  ])
  expect(second.tree).toBe(first.tree)
  expect(second.slots).toBe(first.slots)
  expect(second.filler).toBe(first.filler)
  expect(await contents(first, 'a')).toBe('same same same')
  const read = one.blob.ranges.length + two.blob.ranges.length
  expect(await contents(second, 'a')).toBe('same same same')
  expect(one.blob.ranges.length + two.blob.ranges.length).toBe(read)
})

test('layers that look alike but differ in contents have different trees', async () => {
  const { layers } = await openCache(await folder())
  const one = await lazyLayer({ a: 'aaaa' })
  const two = await lazyLayer({ a: 'bbbb' })
  const first = await layers.open(unitOf(one.descriptor), sourceOf(one.blob), 'registry.example.com')
  const second = await layers.open(unitOf(two.descriptor), sourceOf(two.blob), 'registry.example.com')
  expect(second.tree).not.toBe(first.tree)
  expect(second.slots).not.toBe(first.slots)
  expect([await contents(first, 'a'), await contents(second, 'a')]).toEqual(['aaaa', 'bbbb'])
})

test('an image that was damaged on disk is built again from the registry', async () => {
  const dir = await folder()
  const made = await lazyLayer({ a: 'one' })
  const before = await openCache(dir)
  const { tree } = await before.layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  await before.close()
  const path = join(dir, 'trees', hex(tree), 'image')
  const image = await readFile(path)
  image[image.length - 1] = (image[image.length - 1] as number) ^ 1
  await writeFile(path, image)
  made.blob.ranges.length = 0
  const after = await openCache(dir)
  const layer = await after.layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  expect(layer.tree).toBe(tree)
  expect(made.blob.ranges.length).toBeGreaterThan(0)
  expect(await contents(layer, 'a')).toBe('one')
  expect(after.store.counters.corruptImages).toBe(1)
})

test('a failed open is not remembered', async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ a: 'one' })
  const away = sourceOf(answering(made.blob, fails))
  await expect(layers.open(unitOf(made.descriptor), away, 'registry.example.com')).rejects.toMatchObject({
    code: 'unavailable',
  })
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  expect(await contents(layer, 'a')).toBe('one')
})

test('a layer without a lazy format is refused without reading a byte, with the reason', async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ a: 'one' })
  const plain = { ...made.descriptor, annotations: {} }
  const image = { manifest: { layers: [plain] }, blob: () => made.blob } as unknown as ResolvedImage // what is used of it
  expect(await openLayer(image, plain, layers)).toEqual({
    descriptor: plain,
    why: expect.stringContaining('no eStargz TOC digest'),
  })
  expect(made.blob.ranges).toEqual([])
})

test('the copy of a blob that brought something last is asked first; one that fails is passed over for the next', async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ a: 'one', b: 'two' })
  const asked: string[] = []
  const failsLater = answering(made.blob, async (range) => {
    asked.push('index')
    if (asked.length === 1) return await made.blob.read(range)
    throw Failure.denied('the token has expired')
  })
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(failsLater), 'registry.example.com')
  await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  const away = answering(made.blob, async () => {
    asked.push('away')
    throw Failure.denied('the token has expired')
  })
  expect(await contents(layer, 'a')).toBe('one')
  expect(asked).toEqual(['index', 'index'])
  await layers.open(unitOf(made.descriptor), sourceOf(away), 'registry.example.com')
  expect(await contents(layer, 'b')).toBe('two')
  expect(asked).toEqual(['index', 'index'])
  // and when all fail, the newest says why
  const { layers: others } = await openCache(await folder())
  const late = answering(made.blob, async (range) => {
    if (range.end === made.blob.size) return await made.blob.read(range) // the index
    throw Failure.missing('it was deleted')
  })
  const gone = await others.open(unitOf(made.descriptor), sourceOf(late), 'registry.example.com')
  await others.open(unitOf(made.descriptor), sourceOf(away), 'registry.example.com')
  await expect(gone.filler.fill([0], 'demand')).rejects.toMatchObject({ code: 'denied' })
})

test('copies are few, however often a layer is opened', async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ a: 'one' })
  let asked = 0
  const goesAway = answering(made.blob, async (range) => {
    if (range.end === made.blob.size) return await made.blob.read(range) // the index
    asked++
    throw Failure.unavailable('away')
  })
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(goesAway), 'registry.example.com')
  for (let i = 0; i < 20; i++) {
    const away = answering(made.blob, async () => {
      asked++
      throw Failure.unavailable('away')
    })
    await layers.open(unitOf(made.descriptor), sourceOf(away), 'registry.example.com')
  }
  await expect(layer.filler.fill([0], 'demand')).rejects.toMatchObject({ code: 'unavailable' })
  expect(asked).toBeGreaterThan(0)
  expect(asked).toBeLessThanOrEqual(8) // four copies, each tried again at most once
})

test('no more than four indexes are read at once; layers on disk do not wait for them', async () => {
  const dir = await folder()
  const known = await lazyLayer({ known: 'layer' })
  const before = await openCache(dir)
  await before.layers.open(unitOf(known.descriptor), sourceOf(known.blob), 'registry.example.com')
  await before.close()
  const { layers } = await openCache(dir)
  const made = await Promise.all(Array.from({ length: 7 }, (_, i) => lazyLayer({ a: `layer ${i}` })))
  let reading = 0
  let most = 0
  const go = Promise.withResolvers<void>()
  const full = Promise.withResolvers<void>()
  const opening = made.map(({ descriptor, blob }) => {
    const slow = answering(blob, async (range) => {
      most = Math.max(most, ++reading)
      if (reading === 4) full.resolve()
      await go.promise
      reading--
      return await blob.read(range)
    })
    return layers.open(unitOf(descriptor), sourceOf(slow), 'registry.example.com')
  })
  await full.promise
  expect(await layers.open(unitOf(known.descriptor), sourceOf(known.blob), 'registry.example.com')).toBeDefined()
  go.resolve()
  expect(new Set((await Promise.all(opening)).map((each) => each.tree)).size).toBe(7)
  expect(most).toBe(4)
})

/** A read that ends only when it is given up; `begun` once so many have begun. */
function standingStill(count: number) {
  const begun = Promise.withResolvers<void>()
  const wait = (signal: AbortSignal | undefined) => {
    if (--count === 0) begun.resolve()
    return new Promise<never>((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
  }
  return { wait, begun: begun.promise }
}

test('layers of a registry that stands still keep nobody from those of another', async () => {
  const { layers, close } = await openCache(await folder())
  const made = await Promise.all(Array.from({ length: 6 }, (_, i) => lazyLayer({ a: `layer ${i}` })))
  const { wait, begun } = standingStill(4)
  const stuck = made.map(({ descriptor, blob }) => {
    const hanging = sourceOf(answering(blob, (_, options) => wait(options?.signal)))
    return expect(layers.open(unitOf(descriptor), hanging, 'hangs.example.com')).rejects.toMatchObject({
      code: 'aborted',
    })
  })
  await begun
  const other = await lazyLayer({ b: 'elsewhere' })
  const layer = await layers.open(unitOf(other.descriptor), sourceOf(other.blob), 'registry.example.com')
  expect(await contents(layer, 'b')).toBe('elsewhere')
  await close()
  await Promise.all(stuck)
})

test('no more than sixteen indexes are read at once, from however many registries', async () => {
  const { layers, close } = await openCache(await folder())
  const made = await Promise.all(Array.from({ length: 20 }, (_, i) => lazyLayer({ a: `layer ${i}` })))
  const { wait, begun } = standingStill(16)
  let reading = 0
  const stuck = made.map(({ descriptor, blob }, i) => {
    const hanging = answering(blob, (_, options) => {
      reading++
      return wait(options?.signal)
    })
    const opening = layers.open(unitOf(descriptor), sourceOf(hanging), `registry${i % 5}.example.com`)
    return expect(opening).rejects.toMatchObject({ code: 'aborted' })
  })
  await begun
  await turn()
  expect(reading).toBe(16)
  await close()
  await Promise.all(stuck)
})

test('close waits for no registry that is asked for an index in another image', async () => {
  const { layers, close } = await openCache(await folder())
  // the footer says that the table is in another image
  const bytes = Buffer.from(makeFooter(0).subarray(0, FOOTER_BYTES - 5))
  bytes.write('\x15\0SG\x11\0STARGZEXTERNALTOC\x01\x00\x00\xff\xff\0\0\0\0\0\0\0\0', 10, 'latin1')
  const blob = new MemoryBlob(bytes)
  const annotations = { [TOC_DIGEST]: blob.digest }
  const descriptor: Descriptor = { mediaType: OCI_LAYER, digest: blob.digest, size: blob.size, annotations }
  const { wait, begun } = standingStill(1)
  const opening = layers.open(
    unitOf(descriptor),
    {
      repository: 'registry.example.com/app',
      blob: () => blob,
      sizeOf: async () => undefined,
      companion: (_, signal) => wait(signal),
    },
    'registry.example.com',
  )
  const outcome = expect(opening).rejects.toMatchObject({ code: 'aborted' })
  await begun
  await close()
  await outcome
})

test('what is wanted first is fetched once, and what goes wrong is logged once', async () => {
  const { layers, warnings } = await openCache(await folder())
  const made = await lazyLayer({ first: 'wanted', rest: 'not yet' }, { prioritized: ['first'] })
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  const read = made.blob.ranges.length
  const [one, two] = await Promise.all([layer.prefetch(), layer.prefetch()])
  expect([one, two]).toEqual([{ ready: 1, failed: 0 }, one])
  expect(made.blob.ranges.length).toBe(read + 1)
  const other = await lazyLayer({ first: 'other', rest: 'not yet' }, { prioritized: ['first'] })
  let index = true
  const broken = answering(other.blob, async (range) => {
    if (!index) throw Failure.unavailable('the registry is away')
    index = false
    return await other.blob.read(range)
  })
  const failing = await layers.open(unitOf(other.descriptor), sourceOf(broken), 'registry.example.com')
  await Promise.all([failing.prefetch(), failing.prefetch()])
  expect(warnings).toEqual([
    `layer ${other.descriptor.digest}: 1 of 1 chunks wanted first could not be fetched: the registry is away`,
  ])
})

test('close gives everything back, also what was still being opened', async () => {
  const dir = await folder()
  const { layers, close } = await openCache(dir)
  const made = await lazyLayer({ a: 'one' })
  await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  const slow = await lazyLayer({ b: 'two' })
  const begun = Promise.withResolvers<void>()
  const hanging = answering(slow.blob, (_, options) => {
    begun.resolve()
    return new Promise((_, reject) => {
      options?.signal?.addEventListener('abort', () => reject(options.signal?.reason))
    })
  })
  const opening = layers.open(unitOf(slow.descriptor), sourceOf(hanging), 'registry.example.com')
  const outcome = expect(opening).rejects.toMatchObject({ code: 'aborted' })
  await begun.promise
  expect((await openFiles(dir)).length).toBeGreaterThan(0)
  await close()
  await outcome
  expect(await openFiles(dir)).toEqual([])
  await expect(layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')).rejects.toMatchObject(
    {
      code: 'aborted',
    },
  )
})

test('what nobody has open any more gives its files back, but for few; whoever opens it again finds what was fetched', async () => {
  const dir = await folder()
  const { layers, done } = await openCache(dir, undefined, { idleMax: 2 })
  const made = await Promise.all(Array.from({ length: 6 }, (_, i) => lazyLayer({ a: `layer ${i}` })))
  const before = (await openFiles(dir)).length
  for (const [i, { descriptor, blob }] of made.entries()) {
    await using layer = await layers.open(unitOf(descriptor), sourceOf(blob), 'registry.example.com')
    expect(await contents(layer, 'a')).toBe(`layer ${i}`)
  }
  expect(layers.size).toBe(2)
  expect((await openFiles(dir)).length).toBe(before + 2 * 2)
  const [first] = made as [(typeof made)[0]]
  const read = first.blob.ranges.length
  const again = await layers.open(unitOf(first.descriptor), sourceOf(first.blob), 'registry.example.com')
  expect(await contents(again, 'a')).toBe('layer 0')
  expect(first.blob.ranges.length).toBe(read)
  expect(done().decoded).toBe(made.length)
})

test('a layer that is opened while its last holder closes it is open; what is read of it is right', async () => {
  const { layers } = await openCache(await folder(), undefined, { idleMax: 0 })
  const made = await lazyLayer({ a: 'one' })
  const open = () => layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  let layer = await open()
  for (let turns = 0; turns < 30; turns++) {
    const closing = layer.close()
    for (let i = 0; i < turns; i++) await Promise.resolve()
    layer = await open()
    expect(await contents(layer, 'a')).toBe('one')
    await closing
    expect(await contents(layer, 'a')).toBe('one')
  }
  await layer.close()
  expect(layers.size).toBe(0)
})

test('a tree lives as long as any layer that builds it, and is filled by those alone', async () => {
  const dir = await folder()
  const { layers } = await openCache(dir, undefined, { idleMax: 0 })
  const { made, several, asked } = await alike(1)
  const [other] = several as [(typeof several)[0]]
  const first = await layers.open(unitOf(other.descriptor), other.source, 'registry.example.com')
  const second = await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  expect(second.slots).toBe(first.slots)
  await first.close()
  expect(await contents(second, 'a')).toBe('one')
  expect(asked).toEqual([])
  const open = await openFiles(dir)
  await second.close()
  expect((await openFiles(dir)).length).toBe(open.length - 2)
})

test('a layer whose device cannot be opened leaves no file open, and can be opened later', async () => {
  const dir = await folder()
  const state = { broken: false }
  const { layers } = await openCache(dir, {
    tryLock() {
      if (state.broken) throw Failure.timeout('locked')
      return true
    },
  })
  const made = await lazyLayer({ a: 'one' })
  state.broken = true
  const before = await openFiles(dir)
  await expect(layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')).rejects.toMatchObject(
    {
      code: 'timeout',
    },
  )
  expect(await openFiles(dir)).toEqual(before)
  state.broken = false
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  expect(await contents(layer, 'a')).toBe('one')
})

test('what is half open when the agent stops is closed, too', async () => {
  const dir = await folder()
  const made = await lazyLayer({ a: 'one' })
  const before = await openCache(dir)
  await before.layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  await before.close()
  const { layers, store, close } = await openCache(dir)
  const reached = Promise.withResolvers<void>()
  const go = Promise.withResolvers<void>()
  const openImage = store.openImage.bind(store)
  store.openImage = async (tree) => {
    reached.resolve()
    await go.promise
    return await openImage(tree)
  }
  const opening = layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  await reached.promise
  const closing = close()
  go.resolve()
  await Promise.allSettled([opening, closing])
  expect(await openFiles(dir)).toEqual([])
})

test('what one registry says of a blob does not count for another, whose copy helps out all the same', async () => {
  const { layers } = await openCache(await folder())
  const made = await lazyLayer({ a: 'one' })
  const again = await lazyLayer({ a: 'one' })
  // the first registry gives the index, and then nothing any more
  let reads = 0
  const failing = answering(made.blob, (range) => {
    if (reads++ > 0) throw Failure.corrupt('not what it was')
    return made.blob.read(range)
  })
  const first = await layers.open(unitOf(made.descriptor), sourceOf(failing), 'registry.example.com')
  const second = await layers.open(unitOf(again.descriptor), sourceOf(again.blob), 'other.example.com')
  // its index was read from its own blob, although the first one's is known
  expect(again.blob.ranges).toHaveLength(1)
  expect(second.tree).toBe(first.tree)
  expect(await contents(first, 'a')).toBe('one')
  expect(again.blob.ranges).toHaveLength(2)
})

/** So many layers with one tree, each a blob of its own that gives its index and nothing else; `reads`: who was asked for more. */
async function alike(count: number, files: Record<string, string> = { a: 'one' }) {
  const made = await lazyLayer(files)
  const bytes = new Uint8Array(await made.blob.read({ start: 0, end: made.blob.size }))
  const asked: number[] = []
  const several = Array.from({ length: count }, (_, i) => {
    const blob = new MemoryBlob(bytes.with(9, 100 + i)) // the operating system in a gzip header means nothing
    const refuses = answering(blob, async (range) => {
      if (range.end === blob.size) return await blob.read(range)
      asked.push(i)
      throw Failure.corrupt('not what it was')
    })
    return { descriptor: { ...made.descriptor, digest: blob.digest }, source: sourceOf(refuses) }
  })
  return { made, several, asked }
}

test('however many layers of a tree fail, the one that was there first still fills it', async () => {
  const { layers } = await openCache(await folder())
  const { made, several, asked } = await alike(6)
  const honest = await layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  for (const { descriptor, source } of several) {
    expect((await layers.open(unitOf(descriptor), source, 'registry.example.com')).filler).toBe(honest.filler)
  }
  expect(await contents(honest, 'a')).toBe('one')
  expect(new Set(asked).size).toBe(3)
})

test('a layer that made room for others fills its tree again when it is opened again', async () => {
  const { layers } = await openCache(await folder())
  const { made, several, asked } = await alike(5)
  const open = async (each: number) => {
    const { descriptor, source } = several[each] as (typeof several)[0]
    await layers.open(unitOf(descriptor), source, 'registry.example.com')
  }
  for (const each of [0, 1, 2, 3]) await open(each)
  const honest = () => layers.open(unitOf(made.descriptor), sourceOf(made.blob), 'registry.example.com')
  const layer = await honest()
  await open(4)
  await expect(contents(layer, 'a')).rejects.toMatchObject({ code: 'corrupt' })
  expect(new Set(asked)).toEqual(new Set([0, 1, 2, 4]))
  expect((await honest()).slots).toBe(layer.slots)
  expect(await contents(layer, 'a')).toBe('one')
})

test('a layer that is quarantined never fills the tree that others show, however often it is tried', async () => {
  const dir = await folder()
  const { made, several, asked } = await alike(1)
  const [liar] = several as [(typeof several)[0]]
  const before = await openCache(dir)
  const { tree } = await before.layers.open(unitOf(liar.descriptor), liar.source, 'registry.example.com')
  const seen = { diffId: tree, tarSize: 1, split: tree }
  const claim = { blob: liar.descriptor.digest, tree }
  await before.store.proofs.keep(claim, { verdict: 'refuted', why: 'it lies', ...seen })
  await before.close()
  const { layers } = await openCache(dir)
  let reads = 0
  const failing = answering(made.blob, (range) => {
    if (reads++ > 0) throw Failure.unavailable('the registry is away')
    return made.blob.read(range)
  })
  const layer = await layers.open(unitOf(made.descriptor), sourceOf(failing), 'registry.example.com')
  for (let i = 0; i < 3; i++) {
    for (const origin of ['registry.example.com', 'other.example.com']) {
      const opening = layers.open(unitOf(liar.descriptor), liar.source, origin)
      await expect(opening).rejects.toMatchObject({ code: 'corrupt', message: expect.stringContaining('quarantined') })
    }
  }
  await expect(contents(layer, 'a')).rejects.toMatchObject({ code: 'unavailable' })
  expect(asked).toEqual([])
})

test('what is there in a file is filled from it, whatever registries keep others waiting for', async () => {
  const { layers, close } = await openCache(await folder())
  const { wait, begun } = standingStill(4)
  const open = async (content: string) => {
    const made = await lazyLayer({ a: content })
    const hanging = answering(made.blob, (range, options) =>
      range.end === made.blob.size ? made.blob.read(range) : wait(options?.signal),
    )
    return { made, layer: await layers.open(unitOf(made.descriptor), sourceOf(hanging), 'hangs.example.com') }
  }
  const stuck = await Promise.all([1, 2, 3, 4].map((each) => open(`layer ${each}`)))
  const ends = stuck.map(({ layer }) => expect(layer.filler.fill([0], 'prefetch')).rejects.toThrow())
  await begun
  const { made, layer } = await open('whole')
  const all = new Uint8Array(await made.blob.read({ start: 0, end: made.blob.size }))
  const whole: StoredBlob = { ...answering(made.blob, fails), origin: 'hangs.example.com', stream: (take) => take(all) }
  expect(await layers.prove(layer, whole)).toMatchObject({ verdict: 'proven' })
  expect(new Set(await layer.slots.states())).toEqual(new Set([READY_VERIFIED]))
  await close()
  await Promise.all(ends)
})

test('readers of one registry do not wait for another, which stands still', async () => {
  const { layers, close } = await openCache(await folder())
  const { wait, begun } = standingStill(64)
  const stuck = await Promise.all(
    Array.from({ length: 65 }, async (_, i) => {
      const made = await lazyLayer({ a: `layer ${i}` })
      const hanging = answering(made.blob, (range, options) =>
        range.end === made.blob.size ? made.blob.read(range) : wait(options?.signal),
      )
      return await layers.open(unitOf(made.descriptor), sourceOf(hanging), 'hangs.example.com')
    }),
  )
  const ends = stuck.map(({ filler }) => expect(filler.fill([0], 'demand')).rejects.toThrow())
  await begun
  const other = await lazyLayer({ b: 'elsewhere' })
  const layer = await layers.open(unitOf(other.descriptor), sourceOf(other.blob), 'registry.example.com')
  expect(await contents(layer, 'b')).toBe('elsewhere')
  await close()
  await Promise.all(ends)
})
