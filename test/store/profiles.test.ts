import { readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { digestOf } from '../../src/image/digest.ts'
import type { Profile } from '../../src/image/profile.ts'
import type { ProfiledImage } from '../../src/store/profiles.ts'
import { Store } from '../../src/store/store.ts'
import { flock } from './flock.ts'
import { folder } from './folder.ts'

const digest = (of: string) => digestOf(new TextEncoder().encode(of))
const image = (manifest: string, repository = 'registry.example.com/app'): ProfiledImage => ({
  repository,
  platform: 'linux/amd64',
  manifest: digest(manifest),
})
const profile = (path: string): Profile => ({ files: [{ layer: digest('layer'), path, ranges: [] }], stored: [] })

async function cache() {
  const dir = await folder()
  const warnings: string[] = []
  const open = async () => {
    const store = await Store.open(dir, flock, (each) => void warnings.push(each))
    onTestFinished(() => store.close())
    return store.profiles
  }
  const files = async () => (await readdir(join(dir, 'profiles'))).map((name) => join(dir, 'profiles', name))
  return { profiles: await open(), open, files, warnings }
}

test('a profile is found by its image, also after a restart', async () => {
  const { profiles, open } = await cache()
  await profiles.keep(image('one'), 'start', profile('bin/sh'))
  expect(await (await open()).of(image('one'))).toMatchObject({ from: 'start', profile: profile('bin/sh') })
  expect(await profiles.of(image('two'))).toBeUndefined()
})

test('the newest of a repository is found, and none of another or of another platform', async () => {
  const { profiles, files } = await cache()
  await profiles.keep(image('one'), 'start', profile('old'))
  const [old = ''] = await files()
  await utimes(old, 1_000, 1_000).catch(() => {})
  await profiles.keep(image('two'), 'registry', profile('new'))
  const { repository, platform } = image('one')
  expect(await profiles.newest({ repository, platform })).toMatchObject({ profile: profile('new') })
  expect(await profiles.newest({ repository, platform: 'linux/arm64' })).toBeUndefined()
  expect(await profiles.newest({ repository: `${repository}s`, platform })).toBeUndefined()
})

test('what was forgotten is not there any more', async () => {
  const { profiles } = await cache()
  await profiles.keep(image('one'), 'file', profile('a'))
  await profiles.forget(image('one'))
  await profiles.forget(image('one'))
  expect(await profiles.all()).toEqual([])
})

test('damage, another version, and a record in the place of another say nothing, and go', async () => {
  const { profiles, files, warnings } = await cache()
  for (const each of ['a', 'b', 'c']) await profiles.keep(image(each), 'start', profile(each))
  const [first = '', second = '', third = ''] = await files()
  const text = await readFile(first, 'utf8')
  await writeFile(first, text.replace('linux', 'linus'))
  await writeFile(second, text.replace('"version":2', '"version":9'))
  await writeFile(third, text)
  expect(await profiles.all()).toEqual([])
  expect(warnings).toHaveLength(3)
  expect(await files()).toEqual([])
})

test('of a repository the last few versions are kept', async () => {
  const { profiles, files } = await cache()
  for (let i = 0; i < 8; i++) await profiles.keep(image(`${i}`), 'start', profile('a'))
  const before = await files()
  for (const [i, path] of before.entries()) await utimes(path, Date.now() / 1000 - 100 + i, Date.now() / 1000 - 100 + i)
  await profiles.keep(image('8'), 'start', profile('a'))
  await profiles.keep(image('0', 'registry.example.com/other'), 'start', profile('a'))
  const after = await files()
  expect(after).toHaveLength(9)
  expect(after).not.toContain(before[0])
})

test('one that was not started for long goes when another is kept', async () => {
  const { profiles, files } = await cache()
  await profiles.keep(image('one', 'registry.example.com/old'), 'start', profile('a'))
  const [old = ''] = await files()
  const long = Date.now() / 1000 - 91 * 24 * 60 * 60
  await utimes(old, long, long)
  await profiles.keep(image('two'), 'start', profile('a'))
  expect(await files()).not.toContain(old)
})

test('of nothing no profile is kept', async () => {
  const { profiles } = await cache()
  await profiles.keep(image('one'), 'start', { files: [], stored: [] })
  expect(await profiles.all()).toEqual([])
})
