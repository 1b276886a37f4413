// Whether a container may stand on layers, by what images say of their chains at that moment.
import fs from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { Digest } from '../../src/image/digest.ts'
import { ParentsCheck } from '../../src/snapshotter/parents-check.ts'
import { type PresentImage, PresentImages } from '../../src/snapshotter/present-images.ts'
import type { PulledImage } from '../../src/snapshotter/pulled-image.ts'
import { type LazyLayer, TARGET } from '../../src/snapshotter/snapshot.ts'
import { Snapshots } from '../../src/snapshotter/snapshots.ts'
import { digest } from '../stores/store.ts'

const layer = (of: string): LazyLayer => ({
  reference: 'registry.example.com/app:1',
  manifest: digest(`manifest of ${of}`),
  place: 0,
  diffId: digest('DiffID'),
  blob: digest(`blob of ${of}`),
  index: digest(`index of ${of}`),
  tree: digest(`tree of ${of}`),
  together: false,
})
const imageOf = (of: string, { blob, index } = layer(of)): PresentImage => ({
  digest: layer(of).manifest,
  chain: ['chain0'],
  said: [{ blob, index }],
})

class World {
  readonly present = new PresentImages()
  readonly believed = new Set<Digest>()
  readonly contents = new Set<Digest>()
  readonly proved: Digest[] = []
  readonly opened: string[] = []
  caughtUp = 0
  /** What comes of a conflict. */
  meet: (manifest: Digest) => Promise<void> = async () => {}
  proof: (layer: LazyLayer) => void = () => {}
  readonly snapshots: Snapshots
  readonly #check: ParentsCheck

  constructor(snapshots: Snapshots) {
    this.snapshots = snapshots
    this.#check = new ParentsCheck({
      snapshots,
      present: this.present,
      images: { caughtUp: async () => void this.caughtUp++ },
      contents: { labels: async (_, of) => (this.contents.has(of) ? {} : undefined) },
      pulls: {
        open: async (_, manifest, name) => {
          this.opened.push(name)
          return { image: { digest: manifest } } as PulledImage // what is used of it
        },
      },
      replacements: {
        replace: (_, { image }) => this.meet(image.digest),
        settled: async () => {},
      },
      names: {
        isBelieved: ({ tree }) => this.believed.has(tree),
        prove: async (each) => {
          this.proved.push(each.blob)
          this.proof(each)
        },
      },
      log: () => {},
    })
  }

  async show(of: string): Promise<void> {
    this.believed.add(layer(of).tree)
    const labels = { [TARGET]: 'chain0' }
    await this.snapshots.add({ key: 'ns/base', kind: 'committed', parent: '', labels, id: 1, layer: layer(of) })
  }

  start = () => this.#check.check('ns', 'ns/base')
}

let folder: string
let world: World
beforeEach(async () => {
  folder = await fs.mkdtemp(join(tmpdir(), 'parents-'))
  world = new World(await Snapshots.open(join(folder, 'records'), () => {}))
  await world.show('one')
})
afterEach(async () => {
  await world.snapshots.close()
  await fs.rm(folder, { recursive: true })
})

const refused = (why: string) => ({ code: 'unavailable', why: expect.stringContaining(why) })

describe('a container', () => {
  test('stands on a layer that is believed as long as every image says the same of it', async () => {
    world.present.put('ns', 'app', imageOf('one'))
    world.present.put('other', 'app', imageOf('two'))
    await world.start()
    expect([world.caughtUp, world.proved, world.opened]).toEqual([1, [], []])
  })

  test('does not stand on one that an image which came meanwhile contradicts', async () => {
    world.present.put('ns', 'app', imageOf('one'))
    world.present.put('ns', 'registry.example.com/victim:1', imageOf('two'))
    await expect(world.start()).rejects.toMatchObject(refused('victim:1 says otherwise'))
    expect(world.proved).toEqual([layer('one').blob])
    expect(world.opened).toEqual(['registry.example.com/victim:1'])
  })

  test('nor where it has the same blob, and is read by another index', async () => {
    world.present.put('ns', 'app', imageOf('one'))
    world.present.put('ns', 'victim', imageOf('two', { ...layer('one'), index: digest('true index') }))
    await expect(world.start()).rejects.toMatchObject(refused('says otherwise'))
  })

  test('stands on it when it is proven by then, whoever says otherwise', async () => {
    world.present.put('ns', 'app', imageOf('one'))
    world.present.put('ns', 'hostile', imageOf('two'))
    world.proof = ({ tree }) => world.believed.delete(tree)
    await world.start()
    // and nobody asks again
    await world.start()
    expect([world.caughtUp, world.proved.length]).toEqual([1, 1])
  })

  test('stands on the other’s layer when that has taken its place', async () => {
    world.present.put('ns', 'hostile', imageOf('one'))
    world.present.put('ns', 'victim', imageOf('two'))
    world.meet = async (manifest) => {
      const shown = world.snapshots.get('ns/base')?.layer as LazyLayer
      if (manifest === layer('two').manifest) await world.snapshots.reshow('ns/base', shown, layer('two'))
    }
    await world.start()
  })

  test('does not stand on one whose image is gone, and of which no other says the same', async () => {
    await expect(world.start()).rejects.toMatchObject(refused('no image is there any more'))
    expect(world.proved).toEqual([layer('one').blob])
    world.present.put('ns', 'commit of it', imageOf('two', layer('one')))
    await world.start()
    world.present.drop('ns', 'commit of it')
    // BuildKit gives no names
    world.contents.add(layer('one').manifest)
    await world.start()
  })

  test('is refused where containerd does not tell which images are there', async () => {
    const check = new ParentsCheck({
      ...world,
      images: { caughtUp: () => Promise.reject(Failure.unavailable('containerd does not answer')) },
      contents: { labels: async () => ({}) },
      pulls: { open: () => Promise.reject(new Error('not asked for')) },
      replacements: { replace: async () => {}, settled: async () => {} },
      names: { isBelieved: () => true, prove: async () => {} },
      log: () => {},
    })
    await expect(check.check('ns', 'ns/base')).rejects.toMatchObject({ code: 'unavailable' })
  })
})
