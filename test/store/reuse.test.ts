import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Store } from '../../src/store/store.ts'
import { folder } from './folder.ts'

/** A cache with some trees, and threads that find an image of each repository that they are asked for. */
async function cacheWith(trees: number) {
  const dir = await folder()
  const store = await Store.open(dir, { tryLock: () => true }, () => {})
  for (let i = 0; i < trees; i++) await mkdir(join(dir, 'trees', String(i).repeat(64)), { recursive: true })
  const asked: string[] = []
  const reuse = store.reuse({
    async runHere(_module, name) {
      asked.push(name)
      return { older: true, any: true }
    },
  })
  return { reuse, asked }
}

test('of a cache without trees nobody asks a thread whether an image is here', async () => {
  const { reuse, asked } = await cacheWith(0)
  expect(await reuse.hasImage('https://registry.example.com/app')).toBe(false)
  expect(asked).toEqual([])
})

test('of one with a tree a thread says it, once for the layers of an image', async () => {
  const { reuse, asked } = await cacheWith(1)
  expect(await Promise.all([1, 2].map(() => reuse.hasImage('https://registry.example.com/app')))).toEqual([true, true])
  expect(asked).toEqual(['look'])
})
