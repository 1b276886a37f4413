import { readSync, writeSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { CodecPool } from '../../src/codec/pool.ts'
import { Failure } from '../../src/errors.ts'
import { Budget } from '../../src/fetch/budget.ts'
import { Filler } from '../../src/fetch/filler.ts'
import type { Blob } from '../../src/image/blob.ts'
import { digestOf } from '../../src/image/digest.ts'
import { type Reverifiable, Reverification } from '../../src/layer/reverification.ts'
import { TreeFiller } from '../../src/layer/tree-filler.ts'
import { areComplete } from '../../src/mount/complete.ts'
import type { Device as StoredDevice } from '../../src/store/device.ts'
import { Store } from '../../src/store/store.ts'
import { NONE } from '../../src/tree/chunk.ts'
import { ChunkTable, encodeChunks } from '../../src/tree/chunk-table.ts'
import { READY_HEADER_BYTES, READY_MISSING, READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'
import { noise } from '../codec/fixture.ts'
import { flock } from '../store/flock.ts'
import { folder } from '../store/folder.ts'

const never = () => new AbortController().signal

/** A device in these states that is told what to fill, and fills it a turn later. */
function device(states: number[]) {
  const asked: number[][] = []
  const it: Reverifiable = {
    slots: { states: async () => Uint8Array.from(states) },
    filler: {
      async fill(wanted, priority) {
        expect(priority).toBe('prefetch')
        const chunks = [...wanted]
        asked.push(chunks)
        await turn()
        for (const chunk of chunks) states[chunk] = READY_VERIFIED
      },
    },
  }
  return { it, asked, states }
}

test('what is stored is verified, a part at a time, and what fails keeps nobody from the rest', async () => {
  const one = device(Array(200).fill([READY_STORED, READY_VERIFIED, READY_MISSING]).flat())
  await new Reverification().of(one.it, never())
  expect(one.asked).toEqual([Array.from({ length: 200 }, (_, i) => i * 3)])
  const broken = device(Array(10_000).fill(READY_STORED))
  broken.it.filler.fill = async (wanted) => {
    broken.asked.push([...wanted])
    throw Failure.unavailable('no registry')
  }
  await new Reverification().of(broken.it, never())
  expect(broken.asked.map(({ length }) => length)).toEqual([4096, 4096, 1808])
})

test('layers take turns, and nothing is begun after the end', async () => {
  const order: string[] = []
  const end = new AbortController()
  const named = (name: string) => {
    const made = device(Array(16_000).fill(READY_STORED))
    const { fill } = made.it.filler
    made.it.filler.fill = async (...args) => {
      order.push(name)
      if (order.length === 5) end.abort()
      await fill(...args)
    }
    return made.it
  }
  const all = new Reverification()
  await Promise.all([all.of(named('a'), end.signal), all.of(named('b'), end.signal)])
  expect(order).toEqual(['a', 'b', 'a', 'b', 'a'])
})

const LAYERS = 20
const CHUNKS = 4000
const BYTES = 512

/** Chunks of one stored and decoded size, each in a block of its own. */
function tableOf(content: Uint8Array): ChunkTable {
  const range = { start: 0, end: BYTES }
  const chunks = Array.from({ length: CHUNKS }, (_, i) => {
    const stored = { start: i * BYTES, end: (i + 1) * BYTES }
    const digest = digestOf(content.subarray(stored.start, stored.end))
    const places = [{ from: 0, length: BYTES, at: stored.start }]
    return {
      blob: 0,
      stored,
      size: BYTES,
      codec: NONE,
      checks: [{ of: 'decoded' as const, range, digest }],
      places,
    }
  })
  return new ChunkTable(encodeChunks([{ digest: digestOf(content), size: content.length }], chunks, 0, content.length))
}

/** A process on the cache in `dir`, all of whose layers are asked for at once; the registry has nothing. */
async function life(dir: string, tables: readonly ChunkTable[]) {
  const store = await Store.open(dir, flock, () => {})
  const pool = new CodecPool({ threads: 2 })
  const budget = new Budget()
  const all = new Reverification()
  const open = async (chunks: ChunkTable, i: number) => {
    const slots = await store.openSlots(digestOf(Uint8Array.of(i)), chunks)
    const into = (chunk: number) => ({ deviceFd: slots.deviceFd, readyFd: slots.readyFd, chunk })
    const blob: Blob = { digest: digestOf(noise(1)), size: 1e9, read: () => Promise.reject(Failure.missing('gone')) }
    const filler = new Filler({
      chunks,
      blobs: () => blob,
      slots,
      budget,
      origin: 'registry.example.com',
      decode: (chunk, stored, index, turn) => pool.decode(chunk, stored, into(index), turn),
      reverify: (chunk, index, turn) => pool.verify(chunk, into(index), turn),
    })
    const tree = new TreeFiller()
    tree.add(filler, 'registry.example.com')
    return { slots, chunks, filler, tree, reverify: () => all.of({ slots, filler: tree }, never()) }
  }
  const layers = await Promise.all(tables.map(open))
  const close = async () => {
    for (const { tree, slots } of layers) {
      await tree.close()
      await slots.close()
    }
    await pool.close()
    await store.close()
  }
  onTestFinished(close)
  return { layers, pool, close }
}

/** Fills a device, and says that all of it is ready. */
function write(slots: StoredDevice, content: Uint8Array): void {
  writeSync(slots.deviceFd, content, 0, content.length, 0)
  writeSync(slots.readyFd, new Uint8Array(slots.chunks).fill(READY_VERIFIED), 0, slots.chunks, READY_HEADER_BYTES)
}

/** The first ready bytes, as the native side sees them. */
function readyBytes(slots: StoredDevice, count: number): Uint8Array {
  const bytes = new Uint8Array(count)
  readSync(slots.readyFd, bytes, 0, count, READY_HEADER_BYTES)
  return bytes
}

const countOf = async (slots: StoredDevice, state: number) =>
  (await slots.states()).filter((each) => each === state).length

test('20 complete layers of 4,000 chunks that are all covered at once after a restart are intact, without a request', async () => {
  const dir = await folder()
  const contents = Array.from({ length: LAYERS }, () => noise(CHUNKS * BYTES))
  const tables = contents.map(tableOf)
  const before = await life(dir, tables)
  for (const [i, { slots }] of before.layers.entries()) write(slots, contents[i] as Uint8Array)
  await before.close()

  const { layers, pool } = await life(dir, tables)
  expect(await countOf(layers[0]?.slots as StoredDevice, READY_STORED)).toBe(CHUNKS)
  // as when an agent starts: each image's layers are asked for on their own; whoever reads at the same time reads all of it
  const covered = layers.map((layer) => areComplete([layer], never()))
  const read = layers.map(({ tree }) => tree.fill(Array(CHUNKS).keys(), 'demand'))
  await Promise.all([...covered, ...read])
  for (const { slots, filler } of layers) {
    expect(await countOf(slots, READY_VERIFIED)).toBe(CHUNKS)
    expect(filler.counters).toMatchObject({ damaged: 0, requests: 0 })
  }
  expect(pool.counters()).toMatchObject({ corrupt: 0, decoded: 0, reverified: LAYERS * CHUNKS })
  expect(await areComplete(layers, never())).toEqual(Array(LAYERS).fill(true))
})

test('two processes that find the same chunks damaged put them right, and what either was told is there stays there', async () => {
  const dir = await folder()
  const content = noise(CHUNKS * BYTES)
  const table = tableOf(content)
  const before = await life(dir, [table])
  write(before.layers[0]?.slots as StoredDevice, noise(content.length))
  await before.close()

  const processes = [await life(dir, [table]), await life(dir, [table])]
  const lost: number[] = []
  const healed = processes.map(async ({ layers: [layer], pool }) => {
    const { slots } = layer as { slots: StoredDevice }
    for (let chunk = 0; chunk < 200; chunk++) {
      const into = { deviceFd: slots.deviceFd, readyFd: slots.readyFd, chunk }
      if ((await pool.verify(table.get(chunk), into, { priority: 'demand' })) === 'damaged') {
        const { start, end } = table.storedRange(chunk)
        await pool.decode(table.get(chunk), content.subarray(start, end), into, { priority: 'demand' })
      }
      // this process's readers of all these were told that they are there
      const missing = readyBytes(slots, chunk + 1).findIndex((state) => state !== READY_VERIFIED)
      if (missing >= 0) lost.push(missing)
    }
  })
  await Promise.all(healed)
  expect(lost).toEqual([])
})
