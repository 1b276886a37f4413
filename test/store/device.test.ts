import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { hex } from '../../src/image/digest.ts'
import type { Device } from '../../src/store/device.ts'
import type { Disk } from '../../src/store/disk.ts'
import { Store } from '../../src/store/store.ts'
import { READY_MISSING, READY_VERIFIED } from '../../src/tree/ready.ts'
import { CHUNK_BYTES, refusal, write } from './chunks.ts'
import { disk, NO_READS } from './disk.ts'
import { flock } from './flock.ts'
import { folder } from './folder.ts'
import { tree } from './layer.ts'

const kept = tree(8)
const ALL = [0, 1, 2, 3, 4, 5, 6, 7]
const LIMITS = { max: { bytes: 2 ** 30 }, minFree: { bytes: 0 } }

async function open(dir: string, of: Disk | undefined = disk()): Promise<Device> {
  const room = of === undefined ? {} : { disk: of, limits: LIMITS }
  const store = await Store.open(dir, flock, () => {}, room)
  onTestFinished(() => store.close())
  const device = await store.openSlots(kept.digest, kept.chunks, () => true)
  onTestFinished(() => device.close())
  return device
}

async function full(dir: string): Promise<Device> {
  const device = await open(dir)
  for (const chunk of ALL) await device.fill(chunk, write)
  return device
}

const blocks = async (dir: string) => (await stat(join(dir, 'trees', hex(kept.digest), 'device'))).blocks * 512
const never = () => Promise.reject(new Error('nothing is missing'))

async function bytes(
  device: Device,
  chunk: number,
  fill: (missing: number[]) => Promise<void> = never,
): Promise<Set<number>> {
  const into = new Uint8Array(CHUNK_BYTES)
  await device.read(into, chunk * CHUNK_BYTES, [chunk], fill)
  return new Set(into)
}

test('chunks that are taken back are missing, and give the disk their blocks; others stay', async () => {
  const dir = await folder()
  const device = await full(dir)
  const before = await blocks(dir)
  expect(await device.takeBackChunks([2, 3, 5])).toBe(3 * CHUNK_BYTES)
  expect(ALL.filter((chunk) => device.state(chunk) === READY_MISSING)).toEqual([2, 3, 5])
  expect(before - (await blocks(dir))).toBe(3 * CHUNK_BYTES)
  for (const chunk of [0, 1, 4, 6, 7]) expect(await bytes(device, chunk)).toEqual(new Set([chunk + 1]))
  expect(await device.takeBackChunks([2])).toBe(0)
})

test('nothing is taken back while a chunk is written or read back, in any process', async () => {
  const dir = await folder()
  const device = await full(dir)
  const other = await open(dir)
  for (const user of [device, other]) {
    const [begun, { promise, resolve }] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const writing = user.fill(0, () => {
      begun.resolve()
      return promise
    })
    await begun.promise
    expect(await device.takeBackChunks([0, 1])).toBe(0)
    const checking = user.check(1, () => promise)
    resolve()
    await Promise.all([writing, checking])
    expect(device.state(1)).toBe(READY_VERIFIED)
  }
  expect(await device.takeBackChunks([1])).toBe(CHUNK_BYTES)
  expect(other.state(1)).toBe(READY_MISSING)
})

test('whoever writes waits until nothing is taken back any more', async () => {
  const dir = await folder()
  const punching = Promise.withResolvers<void>()
  const go = Promise.withResolvers<void>()
  const real = disk()
  const device = await open(dir, {
    ...real,
    async punchHoles(fd, ranges) {
      punching.resolve()
      await go.promise
      await real.punchHoles(fd, ranges)
    },
  })
  for (const chunk of ALL) await device.fill(chunk, write)
  const taking = device.takeBackChunks([4])
  await punching.promise
  let written = false
  const writing = device.fill(4, write).then(() => {
    written = true
  })
  await new Promise(setImmediate)
  expect([written, device.state(4)]).toEqual([false, READY_MISSING])
  go.resolve()
  expect(await taking).toBe(CHUNK_BYTES)
  await writing
  expect(await bytes(device, 4)).toEqual(new Set([5]))
})

test('a device that is closed while chunks are taken back is closed after that', async () => {
  const dir = await folder()
  const go = Promise.withResolvers<void>()
  const punching = Promise.withResolvers<void>()
  const real = disk()
  const punchHoles: Disk['punchHoles'] = async (fd, ranges) => {
    punching.resolve()
    await go.promise
    await real.punchHoles(fd, ranges)
  }
  const store = await Store.open(dir, flock, () => {}, { disk: { ...real, punchHoles }, limits: LIMITS })
  onTestFinished(() => store.close())
  const device = await store.openSlots(kept.digest, kept.chunks)
  await device.fill(0, write)
  const taking = device.takeBackChunks([0])
  await punching.promise
  const closing = device.close()
  go.resolve()
  expect(await taking).toBe(CHUNK_BYTES)
  await closing
})

test('what the kernel has mounted is not taken back, whoever mounted it, until nobody has it open', async () => {
  const dir = await folder()
  await full(dir)
  let alone = false
  const [one, other] = [
    await open(
      dir,
      disk(() => alone),
    ),
    await open(
      dir,
      disk(() => alone),
    ),
  ]
  const release = await other.hold()
  expect(release).toBeDefined()
  expect([await one.takeBackChunks([0]), await other.takeBackChunks([0])]).toEqual([0, 0])
  // overlays may have it still
  release?.()
  expect([await one.takeBackChunks([0]), await other.takeBackChunks([0])]).toEqual([0, 0])
  alone = true
  expect(await one.takeBackChunks([0])).toBe(CHUNK_BYTES)
  alone = false
  expect(await other.takeBackChunks([1])).toBe(CHUNK_BYTES)
  expect(await one.hold()).toBeUndefined()
  expect(await one.takeBackChunks([2])).toBe(CHUNK_BYTES)
})

test.each(['ENOSPC', 'EDQUOT', 'EROFS', 'EIO'])(
  'a chunk that the disk refuses with %s is read from memory',
  async (code) => {
    const device = await open(await folder())
    const { deviceFd } = device
    await device.fill(3, (slot) => (slot.deviceFd === deviceFd ? Promise.reject(refusal(code)) : write(slot)))
    expect(device.state(3)).toBe(READY_VERIFIED)
    expect((await device.states())[3]).toBe(READY_MISSING)
    expect(await bytes(device, 3)).toEqual(new Set([4]))
    expect(await device.hold()).toBeUndefined()
  },
)

test('other failures are told, and so are refusals where there is no memory to stand in', async () => {
  const device = await open(await folder())
  await expect(device.fill(0, () => Promise.reject(refusal('EBADF')))).rejects.toThrow('cannot be written')
  const without = await open(await folder(), undefined)
  await expect(without.fill(0, () => Promise.reject(refusal('ENOSPC')))).rejects.toThrow('cannot be written')
})

test('readers of the device are told of the memory once, those that come later at once', async () => {
  const device = await open(await folder())
  const { deviceFd } = device
  const told: string[] = []
  const reader = (name: string) => ({
    reads: NO_READS,
    takeTouched: () => new Uint8Array(),
    spill: () => void told.push(name),
  })
  device.attach(reader('first'))
  for (const chunk of [0, 1]) {
    await device.fill(chunk, (slot) => (slot.deviceFd === deviceFd ? Promise.reject(refusal('ENOSPC')) : write(slot)))
  }
  expect(told).toEqual(['first'])
  device.attach(reader('second'))
  expect(told).toEqual(['first', 'second'])
})

test('a chunk that goes while it is read is filled again; one that always goes is an error', async () => {
  const device = await full(await folder())
  await device.takeBackChunks([1])
  const fill = async (missing: number[]) => {
    for (const chunk of missing) await device.fill(chunk, write)
  }
  expect(await bytes(device, 1, fill)).toEqual(new Set([2]))
  const vain = async () => {}
  await device.takeBackChunks([1])
  await expect(bytes(device, 1, vain)).rejects.toThrow('too little room')
})
