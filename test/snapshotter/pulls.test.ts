// Which images that are pulled are taken for one.
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { planUnits } from '../../src/format/formats.ts'
import type { FoundImage } from '../../src/snapshotter/image-finder.ts'
import { Pulls, type PullsParts, type Wanted } from '../../src/snapshotter/pulls.ts'
import { BLOB_TYPE, BOOTSTRAP } from '../format/nydus/nydus-craft.ts'
import { image, lazy, plain } from '../stores/store.ts'

const app = image('app', [lazy('base')])

/** @param repositoryOf where a namespace has fetched the image from */
function pulls(
  repositoryOf: (namespace: string) => string,
  { manifest } = app,
  kept: string[] = [],
  begun: string[] = [],
): Pulls {
  const found = (namespace: string) =>
    ({
      reference: {
        transport: 'docker',
        host: 'registry.example.com',
        repository: repositoryOf(namespace),
        digest: app.digest,
      },
      manifest,
      manifestBytes: new Uint8Array(),
      configBytes: new Uint8Array(),
      chain: [],
      place: 0,
    }) satisfies FoundImage
  const away = () => Promise.reject(Failure.unavailable('the registry is away'))
  const parts: PullsParts = {
    finder: { find: async (namespace) => found(namespace), open: async (namespace) => found(namespace) },
    images: {
      kept: async (reference) => ({ ...app, reference }) as typeof app,
      begin: (_, digest) => void begun.push(digest),
    },
    keepObject: async (digest) => void kept.push(digest),
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

async function wanted(all: Pulls, namespace: string): Promise<Wanted> {
  const found = await all.find(namespace, 'chain', {})
  if ('refused' in found) throw new Error(found.refused)
  return found
}

test('an image is asked for where its own namespace fetched it, though another is pulling the same from elsewhere', async () => {
  const all = pulls((namespace) => `${namespace}/app`)
  await wanted(all, 'private')
  const { image: seen } = await all.open('public', app.digest, 'name')
  expect(seen.reference).toMatchObject({ repository: 'public/app' })
  expect((await all.open('public', app.digest, 'name')).image).toBe(seen)
  await all.close()
})

test('of many images the one that was asked for last is given up last', async () => {
  const begun: string[] = []
  const all = pulls((namespace) => namespace, app, [], begun)
  const { pulled } = await wanted(all, 'first')
  for (let i = 0; i < 70; i++) {
    await all.find(`other${i}`, 'chain', {})
    expect((await wanted(all, 'first')).pulled).toBe(pulled)
  }
  expect(begun).toHaveLength(71) // each once
  await all.close()
})

test('an image that nobody can show, nor unpack, is refused whichever layer is asked for, and nothing of it is looked at', async () => {
  const blob = lazy('blob', { mediaType: BLOB_TYPE, annotations: {} })
  const top = plain('bootstrap')
  const bootstrap = { ...top, annotations: { [BOOTSTRAP]: 'true' } }
  const kept: string[] = []
  const begun: string[] = []
  const broken = pulls(() => 'app', image('broken', [plain('base'), blob, bootstrap]), kept, begun)
  expect(await broken.find('ns', 'chain', {})).toEqual({
    refused: expect.stringContaining('an ordinary layer is below its bootstrap'),
  })
  expect([...kept, ...begun]).toEqual([])
  // a client that unpacks by itself gets the ordinary ones
  expect(await broken.whyNeverUnpacked('ns', 'chain')).toBeUndefined()
  const whole = pulls(() => 'app', image('whole', [blob, bootstrap]))
  expect(await whole.whyNeverUnpacked('ns', 'chain')).toContain('one tree for several layers')
})
