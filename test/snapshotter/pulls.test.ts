// Which images that are pulled are taken for one.
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { planUnits } from '../../src/format/formats.ts'
import type { FoundImage } from '../../src/snapshotter/image-finder.ts'
import { Pulls, type PullsParts } from '../../src/snapshotter/pulls.ts'
import { image, lazy } from '../stores/store.ts'

const app = image('app', [lazy('base')])

/** @param repositoryOf where a namespace has fetched the image from */
function pulls(repositoryOf: (namespace: string) => string): Pulls {
  const found = (namespace: string) =>
    ({
      reference: {
        transport: 'docker',
        host: 'registry.example.com',
        repository: repositoryOf(namespace),
        digest: app.digest,
      },
      manifest: app.manifest,
      manifestBytes: new Uint8Array(),
      configBytes: new Uint8Array(),
      chain: [],
      place: 0,
    }) satisfies FoundImage
  const away = () => Promise.reject(Failure.unavailable('the registry is away'))
  const parts: PullsParts = {
    finder: { find: async (namespace) => found(namespace), open: async (namespace) => found(namespace) },
    images: { kept: async (reference) => ({ ...app, reference }) as typeof app },
    keepObject: async () => {},
    layers: {
      plan: planUnits,
      open: away,
      openEmpty: away,
      openWhole: away,
      prove: away,
      keep: async () => {},
      everProven: async () => false,
      everRefuted: async () => false,
    },
    names: {
      meet: async () => {},
      take: away,
      restore: async () => {},
      whyHidden: () => undefined,
      isBelieved: () => true,
      prove: async () => {},
    },
    prefetch: async () => {},
    log: () => {},
  }
  return new Pulls(parts)
}

test('an image is asked for where its own namespace fetched it, though another is pulling the same from elsewhere', async () => {
  const all = pulls((namespace) => `${namespace}/app`)
  await all.find('private', 'chain', {})
  const { image: seen } = await all.open('public', app.digest, 'name')
  expect(seen.reference).toMatchObject({ repository: 'public/app' })
  expect((await all.open('public', app.digest, 'name')).image).toBe(seen)
  await all.close()
})

test('of many images the one that was asked for last is given up last', async () => {
  const all = pulls((namespace) => namespace)
  const { pulled } = await all.find('first', 'chain', {})
  for (let i = 0; i < 70; i++) {
    await all.find(`other${i}`, 'chain', {})
    expect((await all.find('first', 'chain', {})).pulled).toBe(pulled)
  }
  await all.close()
})
