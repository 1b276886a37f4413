import { expect, test } from 'vitest'
import { IndexRoom } from '../../src/layer/index-room.ts'

const MIB = 2 ** 20
const never = new AbortController().signal

/** Uses of a room that say when they have it, and end when they are told to. */
function rooms() {
  const room = new IndexRoom()
  const began: string[] = []
  const ends = new Map<string, () => void>()
  const use = (name: string, origin: string, mebibytes: number, signal = never) =>
    room.use(
      origin,
      async (take) => {
        await take(mebibytes * MIB)
        began.push(name)
        await new Promise<void>((done) => ends.set(name, done))
      },
      signal,
    )
  const settle = () => new Promise((done) => setImmediate(done))
  return {
    room,
    began,
    use,
    settle,
    async end(name: string) {
      ends.get(name)?.()
      await settle()
    },
  }
}

test('one of the largest at a time, and small ones beside it', async () => {
  const { room, began, use, end, settle } = rooms()
  for (let i = 0; i < 8; i++) void use(`large ${i}`, `${i}.example.com`, 512)
  void use('small', 'other.example.com', 4)
  await settle()
  expect(began.sort()).toEqual(['large 0', 'small'])
  for (let i = 0; i < 8; i++) {
    expect(room.taken).toBe(512 * MIB)
    await end(`large ${i}`)
  }
  expect(began.length).toBe(9)
  expect(room.taken).toBe(0)
})

test('several that are smaller at once', async () => {
  const { began, use, settle } = rooms()
  for (let i = 0; i < 8; i++) void use(`${i}`, `${i % 4}.example.com`, 128)
  await settle()
  expect(began).toEqual(['0', '1', '2', '3'])
})

test('origins take turns, however many one has waiting', async () => {
  const { began, use, end, settle } = rooms()
  for (let i = 0; i < 4; i++) void use(`hostile ${i}`, 'a.example.com', 500)
  void use('honest', 'b.example.com', 100)
  await settle()
  await end('hostile 0')
  expect(began).toEqual(['hostile 0', 'honest'])
  await end('honest')
  expect(began).toEqual(['hostile 0', 'honest', 'hostile 1'])
})

test('a large one is not passed by smaller ones for ever', async () => {
  const { began, use, end, settle } = rooms()
  void use('first', 'a.example.com', 300)
  await settle()
  void use('large', 'b.example.com', 500)
  for (let i = 0; i < 3; i++) void use(`small ${i}`, `${i}.example.com`, 50)
  await settle()
  expect(began).toEqual(['first'])
  await end('first')
  expect(began.slice(0, 3)).toEqual(['first', 'large', 'small 0'])
})

test('room is given back when the work fails, and a wait that is given up leaves none behind', async () => {
  const { room, began, use, end, settle } = rooms()
  const fails = room.use(
    'a.example.com',
    async (take) => {
      await take(512 * MIB)
      throw new Error('no JSON')
    },
    never,
  )
  await expect(fails).rejects.toThrow('no JSON')
  expect(room.taken).toBe(0)
  void use('first', 'a.example.com', 512)
  const gone = new AbortController()
  const given = use('given up', 'b.example.com', 512, gone.signal)
  void use('next', 'c.example.com', 60)
  await settle()
  gone.abort(new Error('stopping'))
  await expect(given).rejects.toMatchObject({ code: 'aborted' })
  await settle()
  expect(began).toEqual(['first', 'next'])
  await end('first')
  await end('next')
  expect(room.taken).toBe(0)
  await expect(use('late', 'd.example.com', 500, AbortSignal.abort())).rejects.toMatchObject({ code: 'aborted' })
  expect(room.taken).toBe(0)
})
