import { expect, onTestFinished, test } from 'vitest'
import { parseReference } from '../../src/image/reference.ts'
import { firstOf, RememberedCredentials } from '../../src/registry/remembered.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const ADA = { username: 'ada', password: 'x' }

test('credentials count for one repository of one host, and the last told ones', async () => {
  const remembered = new RememberedCredentials()
  remembered.remember('r.example', 'a/b', { identityToken: 'old' })
  remembered.remember('r.example', 'a/b', ADA)
  expect(await remembered.find('r.example', 'a/b')).toEqual(ADA)
  expect(await remembered.find('r.example', 'a')).toBeUndefined()
  expect(await remembered.find('r.example', 'a/b/c')).toBeUndefined()
  expect(await remembered.find('r.example:443', 'a/b')).toBeUndefined()
})

test('there is an end to how many are remembered; the oldest goes', async () => {
  const remembered = new RememberedCredentials()
  for (let i = 0; i <= 4096; i++) remembered.remember('r.example', `a${i}`, ADA)
  expect(await remembered.find('r.example', 'a0')).toBeUndefined()
  expect(await remembered.find('r.example', 'a1')).toEqual(ADA)
  expect(await remembered.find('r.example', 'a4096')).toEqual(ADA)
})

test('keyrings are asked one after the other', async () => {
  const none = { find: async () => undefined }
  const some = { find: async () => ADA }
  const broken = { find: async () => Promise.reject(new Error('asked')) }
  expect(await firstOf(none, some, broken).find('r.example', 'a')).toEqual(ADA)
  expect(await firstOf(none).find('r.example', 'a')).toBeUndefined()
})

test('what was told of a repository is tried before files say anything, and shown to no other repository', async () => {
  await using settings = await Settings.make()
  const shelf = new MemoryShelf()
  shelf.addImage([pattern(1000)], { tags: ['v1'] })
  const registry = await startRegistry({ shelf })
  onTestFinished(() => registry.close())
  await settings.trust(registry.host, registry.cert)
  registry.auth = { scheme: 'basic', ...ADA }
  const registries = settings.registries()
  const resolve = (repository: string) =>
    registries
      .source(parseReference(`${registry.host}/${repository}:v1`))
      .resolve({ os: 'linux', architecture: 'amd64' })
  await expect(resolve('team/app')).rejects.toMatchObject({ code: 'denied' })
  registries.remember({ transport: 'docker', host: registry.host, repository: 'team/app' }, ADA)
  await resolve('team/app')
  await expect(resolve('team/other')).rejects.toMatchObject({ code: 'denied' })
})
