// Zeros that no chunk holds are zeros, whatever a disk makes of them.
import { writeSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { Range } from '../../src/image/blob.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import type { Device } from '../../src/store/device.ts'
import { Store } from '../../src/store/store.ts'
import { ZeroRuns } from '../../src/store/zero-runs.ts'
import { GZIP } from '../../src/tree/chunk.ts'
import { ChunkTable, encodeChunks } from '../../src/tree/chunk-table.ts'
import { write } from './chunks.ts'
import { disk } from './disk.ts'
import { flock } from './flock.ts'
import { folder } from './folder.ts'

const SIZE = 10 * 4096
const DIGEST = digestOf(Buffer.from('an image'))
/** Within a block, from the middle of one to the middle of another, over whole blocks, and where another begins. */
const RUNS: readonly Range[] = [
  { start: 100, end: 200 },
  { start: 5000, end: 9000 },
  { start: 9000, end: 12288 },
  { start: 16384, end: 24576 },
]
/** Its first block's other bytes are the only chunk's. */
const TABLE = new ChunkTable(
  encodeChunks(
    [{ digest: DIGEST, size: 1000 }],
    [
      {
        blob: 0,
        stored: { start: 0, end: 10 },
        size: 100,
        codec: GZIP,
        checks: [{ of: 'decoded', range: { start: 0, end: 100 }, digest: DIGEST }],
        places: [{ from: 0, length: 100, at: 0 }],
      },
    ],
    0,
    SIZE,
    RUNS,
  ),
)

async function open(dir: string, withDisk = true): Promise<Device> {
  const limits = { max: { bytes: 2 ** 30 }, minFree: { bytes: 0 } }
  const store = await Store.open(dir, flock, () => {}, withDisk ? { disk: disk(), limits } : {})
  onTestFinished(() => store.close())
  const device = await store.openSlots(DIGEST, TABLE, () => true)
  onTestFinished(() => device.close())
  return device
}

/** A device whose only chunk is there; everything else in its file is 255. */
async function damaged(dir: string, withDisk = true): Promise<Device> {
  const device = await open(dir, withDisk)
  await device.fill(0, write)
  writeSync(device.deviceFd, new Uint8Array(SIZE - 100).fill(255), 0, SIZE - 100, 100)
  return device
}

const inRuns = (at: number) => RUNS.some(({ start, end }) => at >= start && at < end)
const isRight = (bytes: Uint8Array, from = 0) =>
  bytes.every((byte, i) => from + i < 100 || byte === (inRuns(from + i) ? 0 : 255))

test('reads give zeros there, and what is beside them', async () => {
  const device = await damaged(await folder())
  for (const [from, to] of [
    [0, SIZE],
    [150, 160],
    [150, 6000],
    [8999, 9001],
    [12288, 16384],
    [24575, 24577],
  ] as const) {
    const into = new Uint8Array(to - from)
    await device.read(into, from, [0], () => Promise.reject(new Error('nothing is missing')))
    expect([from, to, isRight(into, from)]).toEqual([from, to, true])
  }
})

test('before the kernel mounts the device its file has zeros there, and nothing else of it changes', async () => {
  const dir = await folder()
  const device = await damaged(dir)
  const file = () => readFile(join(dir, 'trees', hex(DIGEST), 'device'))
  const before = await file()
  expect(isRight(before)).toBe(false)
  expect(await device.hold()).toBeDefined()
  const after = await file()
  expect(isRight(after)).toBe(true)
  expect(after.subarray(0, 100)).toEqual(before.subarray(0, 100))
})

test('the kernel mounts no device of which that cannot be made sure, and any that has none', async () => {
  const device = await damaged(await folder(), false)
  expect(await device.hold()).toBeUndefined()
  expect(await new ZeroRuns({ zeros: () => [] }).restore(-1, undefined)).toBe(true)
})

test('a run without whole blocks, and one that ends with a block, are made zeros by their bytes alone', async () => {
  const punched: number[][] = []
  const real = disk()
  const device = await damaged(await folder())
  const by = {
    ...real,
    punchHoles: async (_: number, ranges: Float64Array) => void punched.push([...ranges]),
  }
  const runs = new ZeroRuns({ zeros: () => [{ start: 110, end: 120 }, { start: 4097, end: 8192 }] }) // biome-ignore format: a line
  expect(await runs.restore(device.deviceFd, by)).toBe(true)
  expect(punched).toEqual([[110, 120, 4097, 8192]])
  expect(await runs.restore(device.deviceFd, by)).toBe(true)
  expect(punched).toHaveLength(1)
})
