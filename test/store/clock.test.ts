import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { CLOCK_FILE, USED_PIECE_BYTES, UseClock } from '../../src/store/clock.ts'
import { folder } from './folder.ts'

const PIECES = 10
const clock = async (dir: string) => {
  const made = new UseClock(dir, PIECES * USED_PIECE_BYTES - 1)
  await made.read()
  return made
}
const times = (of: UseClock) => Array.from({ length: PIECES + 1 }, (_, piece) => of.at(piece))

test('what was used is known by the piece, from ranges and from bits', async () => {
  const it = await clock(await folder())
  it.touch(USED_PIECE_BYTES - 1, USED_PIECE_BYTES + 1, 100)
  it.touchAll(Uint8Array.of(0b1000, 0b1110), 200)
  expect(times(it)).toEqual([100, 100, 0, 200, 0, 0, 0, 0, 0, 200, 0])
})

test('what processes write down is joined, the latest of each piece', async () => {
  const dir = await folder()
  const [one, other] = [await clock(dir), await clock(dir)]
  one.touch(0, 1, 100)
  one.touch(USED_PIECE_BYTES, USED_PIECE_BYTES + 1, 300)
  other.touch(0, 2 * USED_PIECE_BYTES, 200)
  await one.keep()
  await other.keep()
  expect(times(await clock(dir)).slice(0, 3)).toEqual([200, 300, 0])
})

test.each<[string, Uint8Array]>([
  ['too short', new Uint8Array(8)],
  ['of another version', new Uint8Array(8 + PIECES * 8).fill(50)],
  ['of the future', Buffer.concat([Buffer.from('lazyuse1'), Buffer.from(new Float64Array(PIECES).fill(1e15).buffer)])],
])('a file that is %s says nothing', async (_, bytes) => {
  const dir = await folder()
  await writeFile(join(dir, CLOCK_FILE), bytes)
  expect(times(await clock(dir))).toEqual(Array(PIECES + 1).fill(0))
})
