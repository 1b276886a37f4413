import { expect, test } from 'vitest'
import { DiskShare } from '../../src/proof/disk-share.ts'

const never = new AbortController().signal

/** A disk with so many bytes free, and somebody who fills a part of it. */
function disk(free: number, maxBytes = 2 ** 40) {
  const state = { free }
  const room = new DiskShare(async () => state.free, maxBytes)
  const filling = async () => {
    let written = 0
    const given = Promise.withResolvers<number>()
    const end = Promise.withResolvers<void>()
    const work = (bytes: number) => {
      given.resolve(bytes)
      return end.promise
    }
    const ended = room.half(async () => written, work, never)
    ended.catch(given.reject)
    const write = (bytes: number) => {
      written += bytes
      state.free -= bytes
    }
    return { given: await given.promise, write, end: end.resolve, fail: end.reject, ended }
  }
  /** Somebody who knows how much they need, and writes nothing of it until `end`. */
  const needing = async (bytes: number) => {
    const begun = Promise.withResolvers<void>()
    const end = Promise.withResolvers<void>()
    const work = () => {
      begun.resolve()
      return end.promise
    }
    const ended = room.exactly(bytes, 'a blob', async () => 0, work, never)
    await Promise.race([begun.promise, ended])
    return { end: end.resolve, ended }
  }
  return { room, filling, needing }
}

test('each gets half of what is neither taken nor promised', async () => {
  const { filling } = disk(1000)
  const first = await filling()
  expect(first.given).toBe(500)
  const second = await filling()
  expect(second.given).toBe(250)
  first.write(400)
  second.write(250)
  expect((await filling()).given).toBe((1000 - 650 - 100 - 0) / 2)
})

test('two who ask at once are not promised the same', async () => {
  const { filling } = disk(1000)
  const shares = await Promise.all([filling(), filling(), filling()])
  expect(shares.map(({ given }) => given)).toEqual([500, 250, 125])
})

test('what was promised and not taken is free again when the work ends, well or badly', async () => {
  const { filling } = disk(1000)
  const first = await filling()
  first.end()
  await first.ended
  const second = await filling()
  expect(second.given).toBe(500)
  second.fail(new Error('no tar'))
  await expect(second.ended).rejects.toThrow('no tar')
  expect((await filling()).given).toBe(500)
})

test('nobody gets more than a share may have, nor less than nothing', async () => {
  const { filling } = disk(1000, 100)
  const first = await filling()
  expect(first.given).toBe(100)
  first.write(990) // more than it was given, or others filled the disk
  expect((await filling()).given).toBe(5)
  expect((await disk(-1).filling()).given).toBe(0)
})

test('who cannot be told fails, and those who come later are told', async () => {
  const answers = [Promise.reject(new Error('the disk is gone')), Promise.resolve(8)]
  const room = new DiskShare(() => answers.shift() as Promise<number>, 100)
  const ask = () =>
    room.half(
      async () => 0,
      async (bytes) => bytes,
      never,
    )
  await expect(ask()).rejects.toThrow('the disk is gone')
  expect(await ask()).toBe(4)
})

test('who knows how much they need gets that, unless it is more than half of what is left', async () => {
  const { filling, needing } = disk(1000)
  const first = await needing(500)
  await expect(needing(251)).rejects.toMatchObject({
    code: 'limit',
    message: 'a blob has 251 bytes',
    why: expect.stringMatching(/^at most 250 /),
  })
  await needing(250)
  expect((await filling()).given).toBe(125)
  first.end()
  await first.ended
  await needing(312) // of 1000 - 250 - 125
  await expect(disk(1000, 100).needing(101)).rejects.toMatchObject({ code: 'limit' })
})
