// Lazy layers of an earlier life, and what becomes of those that disk does not have.
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { planUnits } from '../../src/format/formats.ts'
import type { Digest } from '../../src/image/digest.ts'
import type { LayerLease, OpenLayer } from '../../src/layer/layer.ts'
import { type ReadBackParts, readBack, readLeft } from '../../src/snapshotter/read-back.ts'
import type { LazyLayer } from '../../src/snapshotter/snapshot.ts'
import { digest, FakeLeases, image, lazy } from '../stores/store.ts'

const app = image('app', [lazy('base'), lazy('top')])
const layerOf = (place: number, tree = `tree of ${place}`): LazyLayer => ({
  reference: 'example.com/app:1',
  manifest: app.digest,
  place,
  diffId: app.config.diffIds[place] as Digest,
  blob: app.manifest.layers[place]?.digest as Digest,
  index: digest('index'),
  tree: digest(tree),
  together: false,
})

function world(shown: LazyLayer[]) {
  const end = new AbortController()
  const leases = new FakeLeases()
  const claimed: Digest[] = []
  const held: Digest[] = []
  const letGo: Digest[] = []
  const said: string[] = []
  const restored: number[] = []
  /** Whether the cache has the layers; whether the registry gives them. */
  const state = { disk: true, registry: true, asked: 0 }
  const parts: ReadBackParts = {
    images: { kept: async () => app, resolve: async () => app },
    layers: {
      plan: planUnits,
      open: async ({ shown: descriptor }, _, __, from): Promise<LayerLease> => {
        if (from === 'disk' && !state.disk) throw Failure.missing('it is not in the cache')
        if (from !== 'disk') state.asked++
        if (from !== 'disk' && !state.registry) throw Failure.unavailable('the registry is away')
        const place = app.manifest.layers.indexOf(descriptor)
        return leases.hold(descriptor.digest, { descriptor, tree: digest(`tree of ${place}`) } as OpenLayer) // what is used of it
      },
      openEmpty: () => Promise.reject(new Error('a test needs it')),
      openWhole: async () => undefined,
    },
    trees: {
      claim: (tree) => void claimed.push(tree),
      hold: async ({ tree }) => void held.push(tree),
      letGo: (tree) => void letGo.push(tree),
    },
    names: { restore: async (_, place) => void restored.push(place) },
    layersNow: () => shown,
    signal: end.signal,
    log: (message) => void said.push(message),
  }
  return { parts, claimed, held, letGo, said, restored, state, end }
}

describe('layers of an earlier life', () => {
  test('are shown again from disk, once for each snapshot, under their names', async () => {
    const { parts, claimed, held, letGo, restored, state } = world([layerOf(0), layerOf(1), layerOf(0)])
    state.registry = false
    expect(await readBack(parts)).toEqual([])
    expect(claimed).toEqual([digest('tree of 0'), digest('tree of 1'), digest('tree of 0')])
    expect(held.sort()).toEqual([digest('tree of 0'), digest('tree of 1')].sort())
    expect(letGo.sort()).toEqual(held)
    expect(restored.sort()).toEqual([0, 1])
  })

  test('that make another tree by now are not shown', async () => {
    const { parts, held, said } = world([layerOf(0, 'another tree')])
    expect(await readBack(parts)).toHaveLength(1)
    expect([held, said]).toEqual([[], [expect.stringContaining('has another tree now')]])
  })

  test('that are gone from disk are shown when the registry gives them, unless they were removed', async () => {
    const shown = [layerOf(0), layerOf(1)]
    const { parts, held, state, said } = world(shown)
    state.disk = false
    state.registry = false
    const left = await readBack(parts)
    expect(left).toHaveLength(2)
    shown.pop() // its snapshot is removed
    const reading = readLeft(left, parts, 1)
    await expect.poll(() => state.asked).toBeGreaterThan(1)
    state.registry = true
    await reading
    expect(held).toEqual([digest('tree of 0')])
    expect(said.at(-1)).toContain('is shown again')
  })

  test('are not waited for once the agent stops', async () => {
    const { parts, state, end } = world([layerOf(0)])
    state.disk = false
    state.registry = false
    const reading = readLeft(await readBack(parts), parts)
    end.abort()
    await reading
  })
})
