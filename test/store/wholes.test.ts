import { mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { type Digest, digestOf, hex } from '../../src/image/digest.ts'
import { WholeFiles } from '../../src/store/wholes.ts'
import { folder } from './folder.ts'

async function cache(maxBytes = 1000) {
  const dir = await folder()
  await mkdir(join(dir, 'tmp'))
  const warnings: string[] = []
  const wholes = await WholeFiles.open(dir, (each) => void warnings.push(each), { maxBytes })
  onTestFinished(() => wholes.close())
  const keep = async (text: string): Promise<Digest> => {
    const { file, path } = await wholes.begin()
    await file.writeFile(text)
    await file.close()
    const digest = digestOf(new TextEncoder().encode(text))
    await wholes.keep(digest, path)
    return digest
  }
  const read = async (digest: Digest) => {
    const file = await wholes.find(digest)
    if (file === undefined) return undefined
    try {
      return await readFile(`/proc/self/fd/${file.fd}`, 'utf8')
    } finally {
      await file.close()
    }
  }
  const path = (digest: Digest) => join(dir, 'wholes', hex(digest))
  const unchecked = async (digest: Digest) => {
    const file = await wholes.openUnchecked(digest)
    return await file.readFile('utf8').finally(() => file.close())
  }
  return { dir, wholes, keep, read, unchecked, path, warnings }
}

test('a file that was kept is found by its digest', async () => {
  const { dir, keep, read } = await cache()
  const digest = await keep('contents')
  expect(await read(digest)).toBe('contents')
  expect(await read(digestOf(new Uint8Array()))).toBeUndefined()
  expect(await readdir(join(dir, 'tmp'))).toEqual([])
})

test('a file that was damaged at rest is dropped, not found', async () => {
  const { keep, read, path, warnings } = await cache()
  const digest = await keep('contents')
  await writeFile(path(digest), 'c0ntents')
  expect(await read(digest)).toBeUndefined()
  expect(warnings).toEqual([expect.stringContaining('differs from its digest')])
  await keep('contents')
  expect(await read(digest)).toBe('contents')
})

test('a file is hashed once, and again when somebody wrote to it or an earlier life kept it', async () => {
  const { dir, keep, read, path, warnings } = await cache()
  const digest = await keep('contents')
  const { mtime } = await stat(path(digest))
  // as no program writes: nothing shows it
  await writeFile(path(digest), 'c0ntents')
  await utimes(path(digest), mtime, mtime)
  expect(await read(digest)).toBe('c0ntents')
  const next = await WholeFiles.open(dir, (each) => void warnings.push(each))
  onTestFinished(() => next.close())
  expect(await next.find(digest)).toBeUndefined()
  await keep('contents')
  await writeFile(path(digest), 'c0ntents')
  expect(await read(digest)).toBeUndefined()
  expect(warnings).toHaveLength(2)
})

test('when there are too many, those not used for longest go; the newest stays however large it is', async () => {
  const { keep, read, path, dir } = await cache(25)
  const [a, b] = [await keep('a'.repeat(10)), await keep('b'.repeat(10))]
  await utimes(path(a), 1, 1)
  await utimes(path(b), 2, 2)
  expect(await read(a)).toBe('a'.repeat(10)) // used now
  const c = await keep('c'.repeat(10))
  expect([await read(a), await read(b), await read(c)].map((each) => each?.[0])).toEqual(['a', undefined, 'c'])
  const large = await keep('d'.repeat(100))
  expect(await readdir(join(dir, 'wholes'))).toEqual([hex(large)])
})

test('a folder in the place of a file is damage like any other', async () => {
  const { keep, read, path } = await cache(20)
  const digest = await keep('contents')
  for (const look of [true, false]) {
    await rm(path(digest), { recursive: true })
    await mkdir(path(digest))
    if (look) expect(await read(digest)).toBeUndefined()
    expect(await read(await keep('contents'))).toBe('contents')
  }
  await rm(path(digest))
  await mkdir(path(digest))
  await keep('much more than there is room for')
  expect(await readdir(dirname(path(digest)))).toHaveLength(1)
})

test('what is kept is known without a look at the disk, and read as it is', async () => {
  const { dir, wholes, keep, read, unchecked, path } = await cache(25)
  const none = digestOf(new Uint8Array())
  expect(wholes.has(none)).toBe(false)
  await expect(unchecked(none)).rejects.toMatchObject({ code: 'missing' })
  const [a, b] = [await keep('a'.repeat(10)), await keep('b'.repeat(10))]
  expect([wholes.has(a), wholes.has(b)]).toEqual([true, true])
  const areThere = wholes.areThere([a, b])
  expect([areThere(), wholes.areThere([a, none])(), wholes.areThere([])()]).toEqual([true, false, true])
  await writeFile(path(b), 'damaged')
  expect(await unchecked(b)).toBe('damaged')
  expect(wholes.has(b)).toBe(true)
  expect(await read(b)).toBeUndefined()
  expect([wholes.has(b), areThere()]).toEqual([false, false])
  const next = await WholeFiles.open(dir, () => {}, { maxBytes: 25 })
  expect([next.has(a), next.has(b)]).toEqual([true, false])
  await keep('c'.repeat(20)) // makes room
  expect(wholes.has(a)).toBe(false)
})
