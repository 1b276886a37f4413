import { expect, test } from 'vitest'
import { type Listable, layerEntry, layersJson } from '../../src/stores/layers-json.ts'
import { digest, plain } from './store.ts'

const LAYER: Listable = {
  id: 'top',
  parent: 'base',
  identity: { by: 'diffid', digest: digest('tar') },
  descriptor: plain('layer'),
  diffId: digest('tar'),
  size: 5000,
}

const parsed = (more: Partial<Listable>): unknown => JSON.parse(layerEntry({ ...LAYER, ...more }))

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

test('the list is JSON, empty or not', () => {
  const read = (entries: string[]) => JSON.parse(new TextDecoder().decode(layersJson(entries)))
  expect(read([])).toEqual([])
  expect(read([layerEntry({ ...LAYER, id: 'a' }), layerEntry({ ...LAYER, id: 'b' })])).toMatchObject([
    { id: 'a' },
    { id: 'b' },
  ])
})
