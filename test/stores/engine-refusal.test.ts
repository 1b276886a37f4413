import { expect, test } from 'vitest'
import { DOCKER_MANIFEST, OCI_MANIFEST } from '../../src/image/manifest.ts'
import { engineRefusal } from '../../src/stores/engine-refusal.ts'
import { trustAll } from '../../src/stores/identity.ts'
import { type ChainParts, openChain } from '../../src/stores/image-chain.ts'
import { config, image, lazy } from './store.ts'

const foreign = { ...config('config'), mediaType: 'application/vnd.example.image.config.v1+json' }

test('an image whose configuration is of a foreign type is one that engines refuse, but in a Docker manifest', () => {
  expect(engineRefusal({ mediaType: OCI_MANIFEST, config: foreign })).toContain('vnd.example.image.config')
  expect(engineRefusal({ mediaType: OCI_MANIFEST, config: config('config') })).toBeUndefined()
  expect(engineRefusal({ mediaType: OCI_MANIFEST, config: { ...foreign, mediaType: '' } })).toBeUndefined()
  expect(engineRefusal({ mediaType: DOCKER_MANIFEST, config: foreign })).toBeUndefined()
})

test('of such an image no layer is opened, and none is listed', async () => {
  const made = image('app', [lazy('base')])
  const refused = { ...made, manifest: { ...made.manifest, config: foreign } }
  const opening = {
    layers: {} as ChainParts['layers'],
    trustsDiffIds: trustAll,
    isAmbiguous: () => false,
    whyNot: () => undefined,
  }
  expect(await openChain(refused, opening, 'all')).toMatchObject({
    links: [],
    why: expect.stringContaining('for an artifact'),
    passing: false,
  })
})
