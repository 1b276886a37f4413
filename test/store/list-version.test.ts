import { mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { digestOf } from '../../src/image/digest.ts'
import { ListVersion } from '../../src/store/list-version.ts'
import { folder } from './folder.ts'

const bytes = (text: string) => new TextEncoder().encode(text)

async function cache() {
  const dir = await folder()
  await mkdir(join(dir, 'tmp'))
  const warnings: string[] = []
  const open = (root = '/store') => ListVersion.open(dir, root, (each) => void warnings.push(each))
  return { dir, open, warnings }
}

test('the last version that was shown is there for the next process, of its own root', async () => {
  const { open } = await cache()
  const first = await open()
  expect(first.restored).toBeUndefined()
  for (const version of [7n, 8n]) first.keep(version, bytes(`list ${version}`))
  await first.close()
  first.keep(9n, bytes('list 9'))
  await first.close()
  expect((await open()).restored).toEqual({ version: 9n, contents: digestOf(bytes('list 9')) })
  expect((await open('/other')).restored).toBeUndefined()
})

test('a record that is damaged says nothing, and is kept again', async () => {
  const { dir, open, warnings } = await cache()
  const first = await open()
  first.keep(7n, bytes('list'))
  await first.close()
  const [name = ''] = await readdir(join(dir, 'listed'))
  for (const damaged of ['', '{', '{"root":"/store","version":"7"}', 'x'.repeat(100_000)]) {
    await writeFile(join(dir, 'listed', name), damaged)
    const next = await open()
    expect(next.restored).toBeUndefined()
    next.keep(8n, bytes('list'))
    await next.close()
    expect((await open()).restored?.version).toBe(8n)
  }
  expect(warnings).toEqual([])
})

test('a disk that takes nothing more is said, and keeps nobody from listing', async () => {
  const { dir, open, warnings } = await cache()
  const version = await open()
  await rm(join(dir, 'tmp'), { recursive: true })
  version.keep(7n, bytes('list'))
  await version.close()
  expect(warnings).toEqual([expect.stringContaining('is not kept')])
})
