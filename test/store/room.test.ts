import { access, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { hex } from '../../src/image/digest.ts'
import type { Device } from '../../src/store/device.ts'
import { Store } from '../../src/store/store.ts'
import { READY_MISSING, READY_VERIFIED } from '../../src/tree/ready.ts'
import type { Tree } from '../../src/tree/tree.ts'
import { CHUNK_BYTES, refusal, write } from './chunks.ts'
import { disk, NO_READS } from './disk.ts'
import { flock } from './flock.ts'
import { folder } from './folder.ts'
import { tree } from './layer.ts'

/** A mebibyte, which goes as one, is as many chunks. */
const PIECE = 2 ** 20 / CHUNK_BYTES
const [one, other] = [tree(PIECE * 2, 'one'), tree(PIECE * 2, 'other')]
const BYTES = 2 * PIECE * CHUNK_BYTES

async function store(dir: string, max = 2 ** 30, warnings: string[] = []): Promise<Store> {
  const limits = { max: { bytes: max }, minFree: { bytes: 0 } }
  const opened = await Store.open(dir, flock, (message) => warnings.push(message), { disk: disk(), limits })
  onTestFinished(() => opened.close())
  return opened
}

async function filled(cache: Store, { digest, chunks }: Tree, refetchable = () => true): Promise<Device> {
  const device = await cache.openSlots(digest, chunks, refetchable)
  onTestFinished(() => device.close())
  // all at once: one lock
  await device.check(0, async () => {
    for (let chunk = 0; chunk < chunks.length; chunk++) {
      await write({ deviceFd: device.deviceFd, readyFd: device.readyFd, chunk })
    }
  })
  return device
}

const there = async (device: Device) => {
  const states = await device.states()
  return [0, 1].map((piece) =>
    states.subarray(piece * PIECE, (piece + 1) * PIECE).every((each) => each === READY_VERIFIED),
  )
}

/** A reader that used these pieces, told once. */
const used = (bits: number) => {
  let next = bits
  const takeTouched = () => {
    const now = next
    next = 0
    return Uint8Array.of(now)
  }
  return { reads: NO_READS, takeTouched, spill: () => {} }
}

test('of a device in use the piece that was not read for longest goes first, and no more than must', async () => {
  const cache = await store(await folder())
  const device = await filled(cache, one)
  device.attach(used(0b01))
  expect(await cache.room.makeFree(1)).toBe(BYTES / 2)
  expect(await there(device)).toEqual([true, false])
})

test('what could not be fetched again stays, and so does what is pinned', async () => {
  const cache = await store(await folder())
  const [away, pinned] = [await filled(cache, one, () => false), await filled(cache, other)]
  await cache.pins.add({ reference: 'docker://host/image:tag', trees: [other.digest] })
  expect(await cache.room.makeFree(1)).toBe(0)
  expect([await there(away), await there(pinned)]).toEqual([
    [true, true],
    [true, true],
  ])
  await cache.pins.remove('docker://host/image:tag')
  expect(await cache.room.makeFree(BYTES)).toBe(BYTES)
  expect(await there(pinned)).toEqual([false, false])
})

test('a device that nobody uses goes as a whole, one that another process uses does not', async () => {
  const dir = await folder()
  const cache = await store(dir)
  const device = await cache.openSlots(one.digest, one.chunks)
  await device.check(0, () => write({ deviceFd: device.deviceFd, readyFd: device.readyFd, chunk: 0 }))
  const room = (await store(dir)).room
  expect(await room.makeFree(1)).toBe(0)
  await device.close()
  expect(await room.makeFree(1)).toBe(CHUNK_BYTES)
  expect(await readdir(join(dir, 'trees', hex(one.digest)))).toEqual([])
  const again = await cache.openSlots(one.digest, one.chunks)
  expect(again.state(0)).toBe(READY_MISSING)
  await again.close()
})

test('kept blobs go when they were not used for longest', async () => {
  const dir = await folder()
  const cache = await store(dir)
  const { file, path } = await cache.wholes.begin()
  await file.writeFile('a blob')
  await file.close()
  await cache.wholes.keep(one.digest, path)
  expect(await cache.room.makeFree(1)).toBe(6)
  await expect(access(join(dir, 'wholes', hex(one.digest)))).rejects.toThrow('ENOENT')
})

test('a fill that does not fit waits until others made room', async () => {
  const dir = await folder()
  await filled(await store(dir), one)
  const cache = await store(dir, BYTES + (1 << 18))
  const old = await cache.openSlots(one.digest, one.chunks, () => true)
  const fresh = await cache.openSlots(other.digest, other.chunks, () => true)
  onTestFinished(async () => void (await Promise.all([old.close(), fresh.close()])))
  await Promise.all(Array.from({ length: PIECE / 2 }, (_, chunk) => fresh.fill(chunk, write)))
  expect((await fresh.states()).subarray(0, PIECE / 2)).toEqual(new Uint8Array(PIECE / 2).fill(READY_VERIFIED))
  expect(await there(old)).toContain(false)
  expect(cache.room.freed).toBe(BYTES / 2)
})

test('where nothing can go, chunks go to memory, what nobody waits for pauses, and it is said once', async () => {
  const warnings: string[] = []
  const cache = await store(await folder(), BYTES / 2, warnings)
  const device = await filled(cache, one, () => false)
  await device.takeBackChunks([0])
  await device.fill(0, write)
  await device.fill(0, write)
  expect([device.state(0), (await device.states())[0]]).toEqual([READY_VERIFIED, READY_MISSING])
  expect(cache.room.full.aborted).toBe(true)
  expect(warnings).toEqual([expect.stringContaining('the cache takes no more')])
})

test('a disk that is full has the cache give some of it back, and is used again', async () => {
  const cache = await store(await folder())
  const old = await filled(cache, one)
  const fresh = await cache.openSlots(other.digest, other.chunks, () => true)
  onTestFinished(() => fresh.close())
  const { deviceFd } = fresh
  await fresh.fill(0, (slot) => (slot.deviceFd === deviceFd ? Promise.reject(refusal('ENOSPC')) : write(slot)))
  expect(cache.room.full.aborted).toBe(true)
  await expect.poll(() => there(old)).toContain(false)
  const { full } = cache.room
  await expect
    .poll(async () => {
      await fresh.fill(1, write)
      return (await fresh.states())[1]
    })
    .toBe(READY_VERIFIED)
  expect([full.aborted, cache.room.full.aborted]).toEqual([true, false])
})
