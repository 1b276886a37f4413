import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, stat, truncate, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { hex } from '../../src/image/digest.ts'
import { Store } from '../../src/store/store.ts'
import { READY_HEADER_BYTES, READY_MISSING, READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'
import { flock } from './flock.ts'
import { folder } from './folder.ts'
import { table, tree } from './layer.ts'

const kept = tree(8)
const name = hex(kept.digest)

async function store(dir: string, warnings: string[] = []): Promise<Store> {
  const opened = await Store.open(dir, flock, (message) => warnings.push(message))
  onTestFinished(() => opened.close())
  return opened
}

const states = (of: { chunks: number; state(chunk: number): number }) =>
  Array.from({ length: of.chunks }, (_, i) => of.state(i))

/** Sets a chunk's byte as a worker does. */
async function set(path: string, chunk: number, state: number): Promise<void> {
  const bytes = await readFile(path)
  bytes[READY_HEADER_BYTES + chunk] = state
  await writeFile(path, bytes, { flag: 'r+' })
}

test('a new device is sparse, of the right size, with nothing ready', async () => {
  const dir = await folder()
  const cache = await store(dir)
  const slots = await cache.openSlots(kept.digest, kept.chunks)
  const device = await stat(join(dir, 'trees', name, 'device'))
  expect([device.size, device.blocks]).toEqual([8 * 4096, 0])
  expect((await stat(join(dir, 'trees', name, 'ready'))).size).toBe(64 + 8 + 4 * 8)
  expect(states(slots)).toEqual(Array(8).fill(READY_MISSING))
  expect(slots.deviceFd).not.toBe(slots.readyFd)
  expect(() => slots.state(8)).toThrow(RangeError)
  expect(() => slots.state(-1)).toThrow(RangeError)
  await slots.close()
})

test('a byte set by a worker or another process is seen at once', async () => {
  const dir = await folder()
  const cache = await store(dir)
  const slots = await cache.openSlots(kept.digest, kept.chunks)
  await set(join(dir, 'trees', name, 'ready'), 3, READY_VERIFIED)
  expect(slots.state(3)).toBe(READY_VERIFIED)
  expect(slots.state(2)).toBe(READY_MISSING)
  await set(join(dir, 'trees', name, 'ready'), 7, READY_STORED)
  expect([...(await slots.states())]).toEqual([0, 0, 0, READY_VERIFIED, 0, 0, 0, READY_STORED])
  await slots.close()
})

test('the states of some chunks are those of each', async () => {
  const dir = await folder()
  const cache = await store(dir)
  const slots = await cache.openSlots(kept.digest, kept.chunks)
  const path = join(dir, 'trees', name, 'ready')
  await set(path, 1, READY_VERIFIED)
  await set(path, 3, 77)
  await set(path, 6, READY_STORED)
  for (const some of [[], [1], [6, 1, 3], [1, 1], [0, 7], [...Array(8).keys()]]) {
    const read = slots.statesOf(some)
    expect(read).toEqual(some.map((chunk) => slots.state(chunk)))
  }
  await set(path, 0, READY_VERIFIED)
  expect(slots.statesOf([1, 0])).toEqual([READY_VERIFIED, READY_VERIFIED])
  expect(() => slots.statesOf([8])).toThrow(RangeError)
  expect(() => slots.statesOf([-1, 2])).toThrow(RangeError)
  await slots.close()
})

test('verified bytes are trusted while a holder lives and demoted by the first opener after the last', async () => {
  const dir = await folder()
  const path = join(dir, 'trees', name, 'ready')
  const [one, two] = [await store(dir), await store(dir)]
  const first = await one.openSlots(kept.digest, kept.chunks)
  await set(path, 1, READY_VERIFIED)
  await set(path, 2, READY_STORED)
  const second = await two.openSlots(kept.digest, kept.chunks)
  expect(states(second)).toEqual([0, READY_VERIFIED, READY_STORED, 0, 0, 0, 0, 0])
  await first.close()
  const third = await one.openSlots(kept.digest, kept.chunks)
  expect(third.state(1)).toBe(READY_VERIFIED)
  await second.close()
  await third.close()
  const fourth = await one.openSlots(kept.digest, kept.chunks)
  expect(states(fourth)).toEqual([0, READY_STORED, READY_STORED, 0, 0, 0, 0, 0])
  expect([...(await readFile(path)).subarray(64, 72)]).toEqual([0, READY_STORED, READY_STORED, 0, 0, 0, 0, 0])
  await fourth.close()
})

test('a ready file of before there were checksums keeps its chunks, and has room for them', async () => {
  const dir = await folder()
  const path = join(dir, 'trees', name, 'ready')
  const cache = await store(dir)
  await (await cache.openSlots(kept.digest, kept.chunks)).close()
  await truncate(path, 64 + 8)
  await set(path, 1, READY_STORED)
  const again = await cache.openSlots(kept.digest, kept.chunks)
  expect(again.state(1)).toBe(READY_STORED)
  expect((await stat(path)).size).toBe(64 + 8 + 4 * 8)
  expect(cache.counters.corruptDevices).toBe(0)
  await again.close()
})

test('a byte that means nothing means missing', async () => {
  const dir = await folder()
  const path = join(dir, 'trees', name, 'ready')
  const cache = await store(dir)
  const first = await cache.openSlots(kept.digest, kept.chunks)
  await set(path, 4, 77)
  expect(first.state(4)).toBe(READY_MISSING)
  await first.close()
  const second = await cache.openSlots(kept.digest, kept.chunks)
  expect((await readFile(path))[64 + 4]).toBe(READY_MISSING)
  await second.close()
})

test('many openers at once agree, and none sees an earlier life’s byte as verified', async () => {
  const dir = await folder()
  const cache = await store(dir)
  const first = await cache.openSlots(kept.digest, kept.chunks)
  await set(join(dir, 'trees', name, 'ready'), 0, READY_VERIFIED)
  await first.close()
  const all = await Promise.all(Array.from({ length: 6 }, () => cache.openSlots(kept.digest, kept.chunks)))
  expect(all.map((each) => each.state(0))).toEqual(Array(6).fill(READY_STORED))
  await Promise.all(all.map((each) => each.close()))
})

type Damage = (ready: string, device: string) => Promise<void>
test.each<[string, Damage]>([
  ['a ready file too short', (ready) => truncate(ready, 64 + 7)],
  ['an empty ready file', (ready) => truncate(ready, 0)],
  ['a ready file too long', (ready) => truncate(ready, 64 + 9)],
  ['another version', async (ready) => writeFile(ready, Uint8Array.of(2), { flag: 'r+' })],
  ['a device too short', (_, device) => truncate(device, 4096)],
  ['a device too long', (_, device) => truncate(device, 9 * 4096)],
  ['no device', (_, device) => unlink(device)],
])('%s sets both aside and begins anew', async (_, damage) => {
  const dir = await folder()
  const warnings: string[] = []
  const [ready, device] = [join(dir, 'trees', name, 'ready'), join(dir, 'trees', name, 'device')]
  const cache = await store(dir, warnings)
  const first = await cache.openSlots(kept.digest, kept.chunks)
  await writeFile(device, 'old', { flag: 'r+' })
  await set(ready, 0, READY_VERIFIED)
  await first.close()
  await damage(ready, device)
  const second = await cache.openSlots(kept.digest, kept.chunks)
  expect(states(second)).toEqual(Array(8).fill(READY_MISSING))
  expect((await readFile(device)).every((byte) => byte === 0)).toBe(true)
  expect(cache.counters.corruptDevices).toBe(1)
  expect(warnings).toHaveLength(1)
  expect((await stat(`${ready}.corrupt`)).isFile()).toBe(true)
  await second.close()
})

test('a device of other contents in the tree’s place is set aside', async () => {
  const dir = await folder()
  const cache = await store(dir)
  await (await cache.openSlots(kept.digest, table(8, 'other contents'))).close()
  const slots = await cache.openSlots(kept.digest, kept.chunks)
  expect(cache.counters.corruptDevices).toBe(1)
  await slots.close()
})

test('a device without a ready file is made anew without alarm', async () => {
  const dir = await folder()
  const cache = await store(dir)
  const first = await cache.openSlots(kept.digest, kept.chunks)
  await first.close()
  await unlink(join(dir, 'trees', name, 'ready'))
  const second = await cache.openSlots(kept.digest, kept.chunks)
  expect(cache.counters.corruptDevices).toBe(0)
  await second.close()
})

test('closing lets go of lock and descriptors', async () => {
  const dir = await folder()
  const cache = await store(dir)
  const slots = await cache.openSlots(kept.digest, kept.chunks)
  const fd = slots.readyFd
  await slots.close()
  expect(() => slots.state(0)).toThrow()
  expect(fd).toBeGreaterThan(2)
})

test('what another process verified is trusted while it lives, and no more once it is killed', async () => {
  const dir = await folder()
  const holder = spawn(process.execPath, [join(import.meta.dirname, 'holder.ts'), dir], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(holder, 'exit')
  onTestFinished(() => void holder.kill('SIGKILL'))
  const [line] = await once(holder.stdout, 'data')
  expect(String(line)).toContain(`chunk 0 is ${READY_VERIFIED}`)
  const cache = await store(dir)
  const beside = await cache.openSlots(kept.digest, kept.chunks)
  expect(beside.state(0)).toBe(READY_VERIFIED)
  await beside.close()
  holder.kill('SIGKILL')
  await ended
  const after = await cache.openSlots(kept.digest, kept.chunks)
  expect(after.state(0)).toBe(READY_STORED)
  await after.close()
})

test('a device that chunks were taken back of is opened again as it is', async () => {
  const dir = await folder()
  const ready = join(dir, 'trees', name, 'ready')
  const cache = await store(dir)
  await (await cache.openSlots(kept.digest, kept.chunks)).close()
  const bytes = await readFile(ready)
  bytes.fill(7, 48, 64) // the count, and the mark of a mount
  await writeFile(ready, bytes)
  await (await cache.openSlots(kept.digest, kept.chunks)).close()
  expect(cache.counters.corruptDevices).toBe(0)
  bytes[47] = (bytes[47] as number) ^ 1
  await writeFile(ready, bytes)
  await (await cache.openSlots(kept.digest, kept.chunks)).close()
  expect(cache.counters.corruptDevices).toBe(1)
})
