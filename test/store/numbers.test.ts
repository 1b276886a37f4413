import fs, { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, expect, test, vi } from 'vitest'
import { type Digest, digestOf, hex } from '../../src/image/digest.ts'
import { Numbers, SLOT_MAX, type TreeNumbers } from '../../src/store/numbers.ts'
import { flock } from './flock.ts'
import { folder } from './folder.ts'

const digest = (of: string): Digest => digestOf(new TextEncoder().encode(of))
/** The most nids that a damaged file may have stood for: of an image of 1 GiB. */
const BURNT = 2 ** 25
let dir: string

beforeEach(async () => {
  dir = await folder()
  await mkdir(join(dir, 'slots'))
  await mkdir(join(dir, 'tmp'))
})

/** As another process, or the same after a restart. */
const open = () => new Numbers(join(dir, 'slots'), join(dir, 'tmp'), flock)
const slotFile = (slot: number) => join(dir, 'slots', String(slot))
/** Of an image of `nids` inodes of the smallest size. */
const give = (numbers: Numbers, tree: string, nids = 100) => numbers.of(digest(tree), async () => nids * 32)

test('each tree has a slot and as many inode numbers as its image can have nids, without a gap', async () => {
  const numbers = open()
  const images = { a: 128, b: 3, c: 100_000, d: 128 }
  const given: TreeNumbers[] = []
  for (const [tree, nids] of Object.entries(images)) given.push(await give(numbers, tree, nids))
  expect(given).toEqual([
    { slot: 1, inodeBase: 0 },
    { slot: 2, inodeBase: 128 },
    { slot: 3, inodeBase: 131 },
    { slot: 4, inodeBase: 100_131 },
  ])
})

test('a tree keeps its numbers for ever, whichever process asks, and no other gets them', async () => {
  const trees = Array.from({ length: 6 }, (_, i) => `tree ${i}`)
  const [one, two] = [open(), open()]
  const numbers = await Promise.all(trees.flatMap((each) => [give(one, each), give(two, each)]))
  for (let i = 0; i < numbers.length; i += 2) expect(numbers[i]).toEqual(numbers[i + 1])
  const slots = [1, 2, 3, 4, 5, 6]
  expect([...new Set(numbers.map(({ slot }) => slot))].sort()).toEqual(slots)
  expect(numbers.map(({ slot, inodeBase }) => inodeBase - 100 * (slot - 1))).toEqual(numbers.map(() => 0))
  const later = open()
  for (const [i, each] of trees.entries()) expect(await give(later, each)).toEqual(numbers[2 * i])
  expect(await give(later, 'another')).toEqual({ slot: 7, inodeBase: 600 })
})

test('a damaged file burns its slot, and more inode numbers than its tree can have had', async () => {
  const trees = ['a', 'b', 'c', 'd']
  const before = open()
  const numbers: TreeNumbers[] = []
  for (const each of trees) numbers.push(await give(before, each))
  const record = await readFile(slotFile(4), 'utf8')
  await writeFile(slotFile(2), '')
  await writeFile(slotFile(3), 'x'.repeat(2000))
  // a flipped bit of the base would give its numbers to two trees
  await writeFile(slotFile(4), record.replace('"inodeBase":300', '"inodeBase":100'))
  const after = open()
  expect(await give(after, 'a')).toEqual(numbers[0])
  for (const [i, each] of ['b', 'c', 'd'].entries()) {
    const { slot, inodeBase } = await give(after, each)
    expect(slot).toBe(5 + i)
    expect(inodeBase).toBeGreaterThanOrEqual(BURNT + 100 * i)
  }
})

test('a tree whose slot was given before there were bases keeps it and is given one, once', async () => {
  await writeFile(slotFile(1), hex(digest('old')))
  await writeFile(slotFile(2), hex(digest('older')))
  const [one, two] = [open(), open()]
  expect(await give(one, 'new')).toEqual({ slot: 3, inodeBase: 0 })
  // the other has read them without a base as well
  expect(await give(two, 'newer')).toEqual({ slot: 4, inodeBase: 100 })
  expect(await give(one, 'old')).toEqual({ slot: 1, inodeBase: 200 })
  expect(await give(two, 'old')).toEqual({ slot: 1, inodeBase: 200 })
  expect(await give(two, 'older')).toEqual({ slot: 2, inodeBase: 300 })
  expect(await give(one, 'newest')).toEqual({ slot: 5, inodeBase: 400 })
  const later = open()
  for (const [i, each] of ['old', 'older', 'new', 'newer', 'newest'].entries()) {
    expect((await give(later, each)).slot).toBe(i + 1)
  }
  expect((await readdir(join(dir, 'slots'))).length).toBe(5)
})

test('beyond 32 bits numbers go on', async () => {
  const numbers = open()
  for (let i = 0; i < 129; i++) await give(numbers, `large ${i}`, BURNT)
  expect(await give(numbers, 'another')).toEqual({ slot: 130, inodeBase: 129 * BURNT })
  expect(129 * BURNT).toBeGreaterThan(2 ** 32)
})

test('when the last slot is given the store says so', async () => {
  await writeFile(slotFile(SLOT_MAX), hex(digest('last')))
  const numbers = open()
  expect(await give(numbers, 'last')).toEqual({ slot: SLOT_MAX, inodeBase: 0 })
  await expect(give(numbers, 'one more')).rejects.toMatchObject({ code: 'limit' })
})

test('an image that cannot be looked at is given no numbers', async () => {
  const numbers = open()
  const failed = numbers.of(digest('a'), () => Promise.reject(new Error('gone')))
  await expect(failed).rejects.toThrow('gone')
  expect(await readdir(join(dir, 'slots'))).toEqual([])
  expect(await give(numbers, 'a')).toEqual({ slot: 1, inodeBase: 0 })
})

test('what is known of how far numbers were given keeps those of lost files from being given again, and burns none', async () => {
  const marked = () => new Numbers(join(dir, 'slots'), join(dir, 'tmp'), flock, { mark: join(dir, 'mark') })
  const first = marked()
  for (const each of ['a', 'b', 'c']) await give(first, each)
  await rm(slotFile(3))
  await writeFile(slotFile(2), 'x')
  const second = marked()
  expect(await give(second, 'd')).toEqual({ slot: 4, inodeBase: 300 })
  await rm(join(dir, 'slots'), { recursive: true })
  await mkdir(join(dir, 'slots'))
  expect(await give(marked(), 'e')).toEqual({ slot: 5, inodeBase: 400 })
  // without it, or with one that is damaged, it goes by the files
  await writeFile(join(dir, 'mark'), '{')
  expect(await give(marked(), 'f')).toEqual({ slot: 6, inodeBase: 500 })
})

test('those that are asked for at once have numbers without a gap, and are marked once; one that fails holds up no other', async () => {
  const mark = join(dir, 'mark')
  const marked = () => new Numbers(join(dir, 'slots'), join(dir, 'tmp'), flock, { mark })
  const numbers = marked()
  const renames = vi.spyOn(fs, 'rename')
  try {
    const failed = numbers.of(digest('gone'), () => Promise.reject(new Error('gone')))
    const given = Promise.all(['a', 'b', 'a', 'c'].map((each) => give(numbers, each)))
    await expect(failed).rejects.toThrow('gone')
    const [a, b, again, c] = await given
    expect([a, b, c]).toEqual([1, 2, 3].map((slot) => ({ slot, inodeBase: 100 * (slot - 1) })))
    expect(again).toEqual(a)
    expect(renames.mock.calls.filter(([, to]) => to === mark)).toHaveLength(1)
  } finally {
    renames.mockRestore()
  }
  expect(await give(marked(), 'd')).toEqual({ slot: 4, inodeBase: 300 })
})

test('numbers that changed places belong to nobody', async () => {
  const first = open()
  for (const each of ['a', 'b']) await give(first, each)
  await rename(slotFile(1), join(dir, 'x'))
  await rename(slotFile(2), slotFile(1))
  await rename(join(dir, 'x'), slotFile(2))
  const { slot } = await give(open(), 'a')
  expect(slot).toBe(3)
})
