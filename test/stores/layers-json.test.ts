import { expect, test } from 'vitest'
import { disagreement, type Listable, layerEntry, layersJson } from '../../src/stores/layers-json.ts'
import { digest, plain } from './store.ts'

const LAYER: Listable = {
  id: 'top',
  parent: 'base',
  identity: { by: 'diffid', digest: digest('tar') },
  descriptor: plain('layer'),
  diffId: digest('tar'),
  size: 5000,
  proven: false,
  tree: digest('tree'),
}

const parsed = (more: Partial<Listable>): unknown => JSON.parse(layerEntry({ ...LAYER, ...more }, false))

test('a layer with a DiffID tells everything engines know of a layer they pulled', () => {
  expect(parsed({})).toEqual({
    id: 'top',
    parent: 'base',
    created: '1970-01-01T00:00:00Z',
    'compressed-diff-digest': digest('layer'),
    'compressed-size': 1234,
    'diff-digest': digest('tar'),
    'diff-size': 5000,
    compression: 2,
  })
  expect(
    parsed({ descriptor: { ...plain('layer'), mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd' } }),
  ).toMatchObject({ compression: 4 })
})

test('a layer that is known by its index claims its DiffID where engines do not believe it, and nowhere else', () => {
  expect(parsed({ identity: { by: 'index', digest: digest('index') }, parent: undefined })).toEqual({
    id: 'top',
    created: '1970-01-01T00:00:00Z',
    'toc-digest': digest('index'),
    'diff-size': 5000,
    flags: { 'expected-layer-diffid': digest('tar') },
  })
})

test('a layer that nobody is to find by its index tells another one, and nothing that engines would believe', () => {
  const entry = JSON.parse(layerEntry({ ...LAYER, identity: { by: 'index', digest: digest('index') } }, true))
  expect(entry).toEqual({
    id: 'top',
    parent: 'base',
    created: '1970-01-01T00:00:00Z',
    'toc-digest': expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
    'diff-size': 5000,
    flags: { 'expected-layer-diffid': digest('tar') },
  })
  expect(entry['toc-digest']).not.toBe(digest('index'))
})

const INDEX = { by: 'index' as const, digest: digest('index') }
const zstd = { ...plain('layer'), mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd' }

test.each<[string, Partial<Listable>, RegExp | undefined]>([
  ['nothing', {}, undefined],
  ['its blob', { descriptor: plain('other') }, /its blob is sha256:.* there and sha256:.* here/],
  ['its blob, if only this one is proven', { descriptor: plain('other'), proven: true }, /its blob is/],
  ['the size of its blob', { descriptor: plain('layer', 1) }, /size of its blob is 1234 there and 1 here/],
  ['its tree', { tree: digest('other') }, /its tree is/],
  ['its compression', { descriptor: zstd }, /its compression is 2 there and 4 here/],
  ['its DiffID, by its index', { identity: INDEX, diffId: digest('other tar') }, /its DiffID is/],
  ['the size of its tar, by its index', { identity: INDEX, size: 1 }, /size of its tar is 5000 there and 1 here/],
  ['the size of its tar, by its DiffID', { size: 1 }, undefined],
])('two images that differ in %s', (_, more, said) => {
  const told = disagreement(LAYER, { ...LAYER, ...more })
  if (said === undefined) expect(told).toBeUndefined()
  else expect(told).toMatch(said)
})

test('what is proven to be one tar shares an entry, however it is compressed', () => {
  const proven = { ...LAYER, proven: true }
  expect(disagreement(proven, { ...proven, descriptor: { ...zstd, digest: digest('other') } })).toBeUndefined()
  expect(disagreement(proven, { ...proven, descriptor: zstd })).toMatch(/its compression/)
})

test('the list is JSON, empty or not', () => {
  const read = (entries: string[]) => JSON.parse(new TextDecoder().decode(layersJson(entries)))
  expect(read([])).toEqual([])
  expect(read([layerEntry({ ...LAYER, id: 'a' }, false), layerEntry({ ...LAYER, id: 'b' }, false)])).toMatchObject([
    { id: 'a' },
    { id: 'b' },
  ])
})
