import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { Blob, Range, ReadOptions } from '../../src/image/blob.ts'
import { digestOf } from '../../src/image/digest.ts'
import { FirstBytes, FirstBytesRoom, WarmWays } from '../../src/layer/first-bytes.ts'
import { ByteLimit } from '../../src/limit.ts'

const never = new AbortController().signal

/** A blob whose reads end when the test says so; its bytes tell their places. */
function slowBlob(size: number) {
  const bytes = Uint8Array.from({ length: size }, (_, i) => i % 251)
  const reads: { range: Range; give: (end: number) => void; fail: (error: Error) => void }[] = []
  const blob: Blob = {
    digest: digestOf(bytes),
    size,
    read: (range, { onPart }: ReadOptions = {}) => {
      const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
      const own = new Uint8Array(range.end - range.start)
      let came = 0
      const give = (end: number) => {
        own.set(bytes.subarray(range.start + came, end), came)
        const at = came
        came = end - range.start
        void onPart?.(own.subarray(at, came), at)
        if (end === range.end) resolve(own)
      }
      reads.push({ range, give, fail: reject })
      return promise
    },
  }
  return { bytes, blob, reads }
}

const PLENTY = { tryTake: () => () => {} }

function begin({ blob }: { blob: Blob }, range: Range | Range[], room = new FirstBytesRoom(PLENTY)) {
  const first = new FirstBytes(room, never)
  first.begin(blob, Array.isArray(range) ? range : [range])
  return first.over(blob)
}

/** A prefetch of a range, and the parts of it that were handed over. */
function prefetch(over: Blob, range: Range, signal?: AbortSignal) {
  const parts: string[] = []
  const onPart = (part: Uint8Array, at: number) => void parts.push(`${at}+${part.length}`)
  return { parts, read: over.read(range, { priority: 'prefetch', onPart, ...(signal ? { signal } : {}) }) }
}

test('a prefetch is given what was begun before it, as it arrives, and nothing is read twice', async () => {
  const slow = slowBlob(1000)
  const over = begin(slow, { start: 0, end: 600 })
  slow.reads[0]?.give(200)
  const { parts, read } = prefetch(over, { start: 50, end: 600 })
  await sleep(0)
  slow.reads[0]?.give(400)
  await sleep(0)
  expect(parts).toEqual(['0+150', '150+200'])
  slow.reads[0]?.give(600)
  expect(await read).toEqual(slow.bytes.subarray(50, 600))
  expect(slow.reads).toHaveLength(1)
})

test('ascending ranges share it, and the last one reads the rest of its own from the blob', async () => {
  const slow = slowBlob(1000)
  const over = begin(slow, { start: 0, end: 600 })
  slow.reads[0]?.give(600)
  expect(await prefetch(over, { start: 0, end: 300 }).read).toEqual(slow.bytes.subarray(0, 300))
  const { parts, read } = prefetch(over, { start: 300, end: 900 })
  await sleep(0)
  expect(slow.reads.map(({ range }) => range)).toEqual([
    { start: 0, end: 600 },
    { start: 600, end: 900 },
  ])
  slow.reads[1]?.give(700)
  slow.reads[1]?.give(900)
  expect(await read).toEqual(slow.bytes.subarray(300, 900))
  expect(parts).toEqual(['0+300', '300+100', '400+200'])
})

test('a prefetch over several of them is given each as it arrives, and what lies between is read', async () => {
  const slow = slowBlob(1000)
  const over = begin(slow, [
    { start: 100, end: 200 },
    { start: 300, end: 400 },
  ])
  slow.reads[1]?.give(400)
  const { parts, read } = prefetch(over, { start: 100, end: 500 })
  await sleep(0)
  expect(parts).toEqual([])
  slow.reads[0]?.give(200)
  await sleep(0)
  slow.reads[2]?.give(300)
  await sleep(0)
  slow.reads[3]?.give(500)
  expect(await read).toEqual(slow.bytes.subarray(100, 500))
  expect(parts).toEqual(['0+100', '100+100', '200+100', '300+100'])
  expect(slow.reads.map(({ range }) => range)).toEqual([
    { start: 100, end: 200 },
    { start: 300, end: 400 },
    { start: 200, end: 300 },
    { start: 400, end: 500 },
  ])
})

test('of ranges that do not ascend only those before are begun, and 8 MiB in all', () => {
  const slow = slowBlob(20 << 20)
  begin(slow, [
    { start: 0, end: 5 << 20 },
    { start: 6 << 20, end: 12 << 20 },
    { start: 13 << 20, end: 14 << 20 },
  ])
  expect(slow.reads.map(({ range }) => range)).toEqual([
    { start: 0, end: 5 << 20 },
    { start: 6 << 20, end: 9 << 20 },
  ])
  const wrong = slowBlob(1000)
  begin(wrong, [
    { start: 10, end: 20 },
    { start: 15, end: 30 },
    { start: 40, end: 50 },
  ])
  expect(wrong.reads).toHaveLength(1)
  const beyond = slowBlob(1000)
  begin(beyond, { start: 10, end: 1001 })
  expect(beyond.reads).toHaveLength(0)
})

test('bytes that were given once are read anew: they may have been wrong', async () => {
  const slow = slowBlob(1000)
  const over = begin(slow, { start: 0, end: 600 })
  slow.reads[0]?.give(600)
  await prefetch(over, { start: 0, end: 300 }).read
  const again = prefetch(over, { start: 100, end: 200 }).read
  expect(slow.reads[1]?.range).toEqual({ start: 100, end: 200 })
  slow.reads[1]?.give(200)
  expect(await again).toEqual(slow.bytes.subarray(100, 200))
})

test('what somebody waits for does not wait for it', async () => {
  const slow = slowBlob(1000)
  const over = begin(slow, { start: 0, end: 600 })
  const demand = over.read({ start: 500, end: 510 })
  slow.reads[1]?.give(510)
  expect(await demand).toEqual(slow.bytes.subarray(500, 510))
})

test('when it fails, all of what was wanted of it is read from the blob', async () => {
  const slow = slowBlob(1000)
  const over = begin(slow, { start: 0, end: 600 })
  slow.reads[0]?.give(200)
  const { read } = prefetch(over, { start: 0, end: 500 })
  slow.reads[0]?.fail(Failure.unavailable('the registry is away'))
  await sleep(0)
  slow.reads[1]?.give(500)
  expect(await read).toEqual(slow.bytes.subarray(0, 500))
})

test('who gives up waits no longer, and takes nothing from the others', async () => {
  const slow = slowBlob(1000)
  const over = begin(slow, { start: 0, end: 600 })
  const gone = new AbortController()
  const [left, stays] = [prefetch(over, { start: 0, end: 300 }, gone.signal), prefetch(over, { start: 300, end: 600 })]
  gone.abort()
  await expect(left.read).rejects.toMatchObject({ code: 'aborted' })
  slow.reads[0]?.give(600)
  expect(await stays.read).toEqual(slow.bytes.subarray(300, 600))
})

test('at most 8 MiB of each blob, and of four blobs at a time, are in memory', async () => {
  const room = new FirstBytesRoom(PLENTY)
  const slow = Array.from({ length: 6 }, () => slowBlob(9 << 20))
  const range = { start: 0, end: 9 << 20 }
  const over = slow.slice(0, 5).map((each) => begin(each, range, room))
  expect(slow.map(({ reads }) => reads.length)).toEqual([1, 1, 1, 1, 0, 0])
  expect(slow[0]?.reads[0]?.range).toEqual({ start: 0, end: 8 << 20 })
  slow[0]?.reads[0]?.give(8 << 20)
  await prefetch(over[0] as Blob, { start: 0, end: 8 << 20 }).read
  begin(slow[5] as (typeof slow)[0], range, room)
  expect(slow[5]?.reads).toHaveLength(1)
})

test('a range outside the blob is not begun', () => {
  const slow = slowBlob(1000)
  for (const [start, end] of [
    [0, 1001],
    [-1, 5],
    [5, 5],
    [0, Number.NaN],
  ] as const)
    begin(slow, { start, end })
  expect(slow.reads).toEqual([])
})

test('who gave what was begun is told to whoever takes it, before any of it', async () => {
  const bytes = new Uint8Array(600)
  const giver = { repository: 'registry.example.com/app', anonymous: false }
  const read: Blob['read'] = async ({ start, end }, options) => {
    await options?.onGiver?.(giver)
    return bytes.subarray(start, end)
  }
  const over = begin({ blob: { digest: digestOf(bytes), size: bytes.length, read } }, { start: 0, end: 600 })
  const told: unknown[] = []
  const onGiver = async (each: unknown) => void told.push(each)
  await over.read({ start: 0, end: 600 }, { priority: 'prefetch', onGiver, onPart: () => void told.push('part') })
  expect(told).toEqual([giver, 'part'])
})

test('the background is given what was begun, too', async () => {
  const slow = slowBlob(1000)
  const over = begin(slow, { start: 0, end: 600 })
  const read = over.read({ start: 0, end: 600 }, { priority: 'background' })
  slow.reads[0]?.give(600)
  expect(await read).toEqual(slow.bytes.slice(0, 600))
  expect(slow.reads).toHaveLength(1)
})

test('first bytes for which there is no memory are not begun, and those that were taken give theirs back', async () => {
  const memory = new ByteLimit([1000, 1000, 600])
  const room = new FirstBytesRoom({ tryTake: (bytes) => memory.tryTake(bytes, 2) })
  const [one, other] = [slowBlob(500), slowBlob(500)]
  const over = begin(one, { start: 0, end: 500 }, room)
  begin(other, { start: 0, end: 500 }, room)
  expect([one.reads.length, other.reads.length, memory.taken]).toEqual([1, 0, 500])
  one.reads[0]?.give(500)
  await prefetch(over, { start: 0, end: 500 }).read
  expect(memory.taken).toBe(0)
})

test('the background’s way to an origin is made once, by one byte', () => {
  const read: unknown[] = []
  const blob = (name: string): Blob => ({
    digest: digestOf(Buffer.from(name)),
    size: 10,
    read: async (range, options) => {
      read.push([name, range, options?.priority])
      throw new Error('whoever reads over it hears of that')
    },
  })
  const ways = new WarmWays()
  const { signal } = new AbortController()
  for (const name of ['a', 'b']) ways.warm(blob(name), 'one.example.com', signal)
  ways.warm(blob('c'), 'two.example.com', signal)
  expect(read).toEqual([
    ['a', { start: 0, end: 1 }, 'background'],
    ['c', { start: 0, end: 1 }, 'background'],
  ])
})
