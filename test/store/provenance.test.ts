import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { digestOf, hex } from '../../src/image/digest.ts'
import { decodeProvenance, mayHave, Provenance, readProvenance } from '../../src/store/provenance.ts'
import { flock } from './flock.ts'
import { folder } from './folder.ts'

const LAYER = digestOf(Uint8Array.of(1))
const A = 'registry.example.com/a'
const B = 'registry.example.com/b'

/** A tree's folder in a cache, and what tells where its bytes come from, of a process of its own each time. */
async function tree(name = 'tree') {
  const cache = await folder()
  await mkdir(join(cache, 'tmp'))
  const path = join(cache, 'trees', name)
  await mkdir(path, { recursive: true })
  const states = { now: Uint8Array.of(0, 0) }
  const process = () =>
    new Provenance({ folder: path, locks: flock, layer: LAYER, states: async () => states.now, kept: () => {} })
  const record = () => readProvenance(path)
  return { path, file: join(path, 'from.json'), states, process, record }
}

test('what came without credentials is everybody’s, until something came with them', async () => {
  const { process, record } = await tree()
  const provenance = process()
  await provenance.add({ repository: A, anonymous: true })
  expect(await record()).toEqual({ private: [], layer: hex(LAYER), repository: A })
  await provenance.add({ repository: A, anonymous: false })
  await provenance.add({ repository: A, anonymous: true })
  expect(await record()).toEqual({ private: [A], layer: hex(LAYER), repository: A })
})

test('processes that share a cache add to what each other wrote down', async () => {
  const { process, record, states } = await tree()
  const [one, other] = [process(), process()]
  await one.add({ repository: A, anonymous: true })
  states.now = Uint8Array.of(1, 0)
  await Promise.all([one.add({ repository: A, anonymous: false }), other.add({ repository: B, anonymous: false })])
  expect(await record()).toMatchObject({ private: expect.arrayContaining([A, B]) })
})

test('of chunks that are there without a record nobody knows where they came from, whatever comes later', async () => {
  const { process, record, states } = await tree()
  states.now = Uint8Array.of(0, 2)
  await process().add({ repository: A, anonymous: true })
  expect(await record()).toMatchObject({ private: null })
  states.now = Uint8Array.of(0, 0)
  await process().add({ repository: A, anonymous: true })
  expect(await record()).toMatchObject({ private: null })
})

test('a record that is damaged, or another tree’s, says that nobody knows', async () => {
  const { process, record, file } = await tree()
  await process().add({ repository: A, anonymous: true })
  const foreign = await tree('other')
  await writeFile(foreign.file, await readFile(file))
  expect(await foreign.record()).toBe('damaged')
  const bytes = await readFile(file)
  bytes[40] = (bytes[40] as number) ^ 1
  await writeFile(file, bytes)
  expect(await record()).toBe('damaged')
  await process().add({ repository: A, anonymous: true })
  expect(await record()).toMatchObject({ private: null })
})

test('more repositories than are written down are as good as nobody', async () => {
  const { process, record } = await tree()
  const provenance = process()
  for (let i = 0; i < 16; i++) await provenance.add({ repository: `${A}${i}`, anonymous: false })
  expect(await record()).toMatchObject({ private: { length: 16 } })
  await provenance.add({ repository: B, anonymous: false })
  expect(await record()).toMatchObject({ private: null })
})

test('where a record cannot be written none is left that promises too much', async () => {
  const { process, record, file, path } = await tree()
  await process().add({ repository: A, anonymous: true })
  await rm(join(path, '..', '..', 'tmp'), { recursive: true })
  await process().add({ repository: A, anonymous: false })
  expect(await record()).toBeUndefined()
  await expect(readFile(file)).rejects.toMatchObject({ code: 'ENOENT' })
})

test.each([
  [[], A, true],
  [[A], A, true],
  [[A], B, false],
  [[A, B], A, false],
  [null, A, false],
])('of a tree with private bytes of %j an image of %s may have some: %s', (repositories, repository, expected) => {
  expect(mayHave({ private: repositories, layer: hex(LAYER), repository: A }, repository)).toBe(expected)
})

test('whatever bytes a record has, it is what was written or nothing', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array(),
        fc.json().map((text) => new TextEncoder().encode(text)),
      ),
      (bytes) => {
        expect(decodeProvenance(bytes, 'tree')).toBeUndefined()
      },
    ),
  )
})
