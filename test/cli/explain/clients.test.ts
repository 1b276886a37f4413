import { expect, test } from 'vitest'
import { type ClientFacts, clientWays, storeWays } from '../../../src/cli/explain/clients.ts'
import type { LayerWay, Ways } from '../../../src/cli/explain/layer.ts'

const LAZY: ClientFacts = { lazy: 2, layers: 2, bound: 2, refused: undefined, together: false }

/** Of all clients, in a letter each. */
const waysOf = (facts: Partial<ClientFacts>) =>
  clientWays({ ...LAZY, ...facts })
    .map(({ way }) => way[0])
    .join('')

test('a lazy image is lazy for every client but one, which never asks', () => {
  expect(waysOf({})).toBe('lllwlllll')
  const [never] = clientWays(LAZY).filter(({ way }) => way === 'whole')
  expect(never).toMatchObject({ client: expect.stringContaining('--local'), fix: expect.stringContaining('crictl') })
})

test('every client is told what to do, and those that go by the name are told that', () => {
  const ways = clientWays(LAZY)
  expect(ways.filter(({ fix }) => fix === null)).toEqual([])
  const byName = ways.filter(({ why }) => why?.includes('by the name')).map(({ client }) => client)
  expect(byName).toEqual(['nerdctl ≤ 2.2, or containerd ≤ 2.0', 'BuildKit, containerd worker', 'BuildKit, OCI worker'])
})

test('plain layers are fetched by the agent, and an image of them alone is lazy for nobody', () => {
  const [kubelet] = clientWays({ ...LAZY, lazy: 1 })
  expect(kubelet).toMatchObject({ way: 'lazy', why: 'the agent fetches 1 of 2 layers whole (plain)' })
  expect(waysOf({ lazy: 0, bound: 0 })).toBe('wwwwwwwww')
})

test('BuildKit is shown layers that it knows by DiffIDs alone once they are proven', () => {
  expect(waysOf({ bound: 0 })).toBe('lllwllwwl')
  const buildKit = clientWays({ ...LAZY, bound: 1 }).find(({ client }) => client.startsWith('BuildKit'))
  expect(buildKit).toMatchObject({
    way: 'lazy',
    why: expect.stringMatching(/^the agent fetches 1 of 2 layers whole \(known to/),
  })
})

test('what nobody can be given fails for all, and what nobody can unpack for those that unpack', () => {
  expect(waysOf({ refused: 'it is of another version' })).toBe('fffffffff')
  expect(waysOf({ together: true })).toBe('lllflllll')
})

const IMAGES: LayerWay = { door: 'images', identity: 'index', lazy: true }
const PULLED: LayerWay = { door: undefined, why: 'it is not proven', fix: 'Prove it.' }
const by = (layer: LayerWay, image: LayerWay): Ways => ({ layer, index: layer, image })

test('Podman and CRI-O do what the versions of them do that are here', () => {
  const ways = [by(PULLED, IMAGES), by(PULLED, IMAGES)]
  expect(storeWays(ways, { podman: 'layer' })).toEqual([
    { client: 'Podman (as it is here)', way: 'whole', why: 'it is not proven', fix: 'what the layers above say' },
    { client: 'CRI-O (newest)', way: 'lazy', why: null, fix: 'lazylayer setup crio' },
  ])
  const [mixed] = storeWays([by(PULLED, IMAGES), by(PULLED, PULLED)], {})
  expect(mixed).toMatchObject({ way: 'lazy', why: '1 of 2 layers are pulled: it is not proven' })
  const [failing] = storeWays([by(PULLED, { ...PULLED, fails: true })], {})
  expect(failing).toMatchObject({ way: 'fails', why: 'it is not proven' })
})
