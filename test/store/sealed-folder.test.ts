import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { SealedFolder } from '../../src/store/sealed-folder.ts'

const bytes = (text: string) => new TextEncoder().encode(text)

async function makeCache(): Promise<string> {
  const cache = await mkdtemp(join(tmpdir(), 'lazylayer-sealed-'))
  onTestFinished(() => rm(cache, { recursive: true }))
  await mkdir(join(cache, 'tmp'))
  return cache
}

test('nothing is made before something is written, and only this user may read it', async () => {
  const cache = await makeCache()
  const folder = new SealedFolder(cache)
  expect(await folder.read('a')).toBeUndefined()
  await folder.remove('a')
  await folder.setAside('a')
  expect(await readdir(cache)).toEqual(['tmp'])
  await folder.write('a', bytes('one'))
  await folder.write('a', bytes('two'))
  expect(await folder.read('a')).toEqual(Buffer.from('two'))
  expect((await stat(join(cache, 'credentials'))).mode & 0o777).toBe(0o700)
  expect((await stat(join(cache, 'credentials/a'))).mode & 0o777).toBe(0o600)
  expect(await readdir(join(cache, 'tmp'))).toEqual([])
  await folder.remove('a')
  expect(await readdir(join(cache, 'credentials'))).toEqual([])
})

test('a file that is set aside is kept for whoever wants to look at it, and not read again', async () => {
  const cache = await makeCache()
  const folder = new SealedFolder(cache)
  await folder.write('a', bytes('one'))
  await folder.setAside('a')
  expect(await folder.read('a')).toBeUndefined()
  expect(await readFile(join(cache, 'credentials/a.damaged'), 'utf8')).toBe('one')
})

test('a file larger than any of ours is damaged, and not read', async () => {
  const cache = await makeCache()
  const folder = new SealedFolder(cache)
  await folder.write('a', bytes('one'))
  await writeFile(join(cache, 'credentials/a'), new Uint8Array((64 << 10) + 1))
  expect(await folder.read('a')).toBe('damaged')
})

test('there is an end to their number: the oldest go, also those set aside', async () => {
  const cache = await makeCache()
  const folder = new SealedFolder(cache, 3)
  const put = async (name: string, at: number) => {
    await folder.write(name, bytes(name))
    await utimes(join(cache, 'credentials', name), at, at)
  }
  await put('b', 2)
  await put('a', 1)
  await folder.setAside('a')
  await put('c', 3)
  await put('d', 4)
  expect(await readdir(join(cache, 'credentials'))).toEqual(['b', 'c', 'd'])
  await put('e', 0)
  // not the one just written, however old its clock says it is
  expect(await readdir(join(cache, 'credentials'))).toEqual(['c', 'd', 'e'])
})
