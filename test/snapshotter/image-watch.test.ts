// Images that containerd is given, and whose layers it never asks for because it has others under their chains.
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { planUnits } from '../../src/format/formats.ts'
import type { Digest } from '../../src/image/digest.ts'
import type { ImageChange, ImageSource, ImageTarget } from '../../src/snapshotter/image-events.ts'
import { ImageWatch } from '../../src/snapshotter/image-watch.ts'
import { PresentImages } from '../../src/snapshotter/present-images.ts'
import type { PulledImage } from '../../src/snapshotter/pulled-image.ts'
import type { SaidLayer } from '../../src/snapshotter/said-layers.ts'
import { digest, image, lazy } from '../stores/store.ts'

const same = image('same', [lazy('one')])
const other = image('other', [lazy('two')])
const images = new Map([same, other].map((each) => [each.digest, each]))

/** Tells, in order, of what the test says; a connection that breaks is made again. */
class Source implements Pick<ImageSource, 'all' | 'changes' | 'mark'> {
  connections = 0
  none = false
  /** Marks that are put before a connection tells anything are lost, as by a server that nobody has subscribed to yet. */
  lost = 0
  listed: ImageTarget[] = [{ namespace: 'ns', name: 'app', digest: same.digest }]
  #waiting: (ImageChange | Error)[] = []
  #wake = () => {}

  async all(namespace: string) {
    return this.listed.filter((each) => each.namespace === namespace)
  }

  async *changes(signal: AbortSignal) {
    this.connections++
    if (this.none) throw Failure.unsupported('it tells of no images')
    this.#waiting = []
    signal.addEventListener('abort', () => this.#wake())
    while (!signal.aborted) {
      const next = this.#waiting.shift()
      if (next instanceof Error) throw next
      if (next !== undefined) yield next
      else await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }

  async mark(mark: string) {
    if (this.none) throw new Error('unimplemented')
    if (this.lost-- > 0) return
    this.tell({ is: 'mark', mark })
  }

  tell(change: ImageChange | Error) {
    this.#waiting.push(change)
    this.#wake()
  }

  /** An image is there. */
  put(name: string, of: Digest, namespace = 'ns') {
    this.tell({ is: 'there', target: { namespace, name, digest: of } })
  }
}

class World {
  readonly source = new Source()
  readonly present = new PresentImages()
  readonly end = new AbortController()
  readonly opened: string[] = []
  readonly looked: Digest[] = []
  readonly replaced: string[] = []
  reading: Promise<void> = Promise.resolve()
  readonly watch = new ImageWatch({
    source: this.source,
    present: this.present,
    finder: {
      manifestOf: async (_, of) => {
        this.looked.push(of)
        await this.reading
        const found = images.get(of)
        return found && { manifest: found.manifest, chain: ['chain0'], digest: of }
      },
    },
    pulls: {
      open: async (namespace, of, said) => {
        this.opened.push(`${namespace} ${said}`)
        return { image: images.get(of) } as PulledImage // what is used of it
      },
    },
    replacements: [
      {
        namespaces: () => new Set(['ns']),
        differs: (_, __, said: readonly SaidLayer[]) => said[0]?.blob !== digest('one'),
        replace: (namespace, _, chain) => {
          this.replaced.push(`${namespace} ${chain}`)
          return new Promise(() => {}) // its registry brings nothing
        },
      },
    ],
    layers: { plan: planUnits },
    platform: { os: 'linux', architecture: 'amd64' },
    signal: this.end.signal,
    log: () => {},
  })
  #running: Promise<void> = Promise.resolve()

  start() {
    this.#running = this.watch.run()
  }

  async stop() {
    this.end.abort()
    await this.#running
  }

  said(namespace = 'ns') {
    return this.present.saying(namespace, 'chain0').map(({ name, image: { digest: of } }) => [name, of])
  }
}

let world: World
beforeEach(() => {
  world = new World()
})
afterEach(() => world.stop())

describe('images of containerd', () => {
  test('that differ from what is shown are opened, the others cost nothing, and a broken connection is made again', async () => {
    world.start()
    await expect.poll(() => world.looked).toEqual([same.digest])
    world.source.put('registry.example.com/other:1', other.digest)
    await expect.poll(() => world.replaced).toEqual(['ns chain0'])
    expect(world.opened).toEqual(['ns registry.example.com/other:1'])
    world.source.tell(new Error('connection reset'))
    await expect.poll(() => world.source.connections).toBe(2)
    await expect.poll(() => world.looked).toEqual([same.digest, other.digest, same.digest])
    expect(world.opened).toHaveLength(1)
  })

  test('are known to whoever waits: those of before, and each that came by then, in every namespace', async () => {
    world.source.lost = 2
    world.source.listed.push({ namespace: 'late', name: 'app', digest: other.digest })
    world.start()
    await world.watch.caughtUp('ns')
    expect(world.said()).toEqual([['app', same.digest]])
    const read = Promise.withResolvers<void>()
    world.reading = read.promise
    world.source.put('new', other.digest)
    let isKnown = false
    const knowing = world.watch.caughtUp('ns').then(() => {
      isKnown = true
    })
    await expect.poll(() => world.looked.at(-1)).toBe(other.digest)
    expect(isKnown).toBe(false)
    read.resolve()
    await knowing
    expect(world.said()).toEqual([
      ['app', same.digest],
      ['new', other.digest],
    ])
    expect(world.said('late')).toEqual([])
    await world.watch.caughtUp('late')
    expect(world.said('late')).toEqual([['app', other.digest]])
  })

  test('that are removed, or mean something else now, say nothing any more, also where that happened while nobody was told', async () => {
    world.start()
    await world.watch.caughtUp('ns')
    world.source.put('app', other.digest)
    world.source.put('second', same.digest)
    world.source.tell({ is: 'gone', namespace: 'ns', name: 'second' })
    await world.watch.caughtUp('ns')
    expect(world.said()).toEqual([['app', other.digest]])
    world.source.listed = [{ namespace: 'ns', name: 'third', digest: same.digest }]
    world.source.tell(new Error('connection reset'))
    await expect.poll(() => world.source.connections).toBe(2)
    await world.watch.caughtUp('ns')
    expect(world.said()).toEqual([['third', same.digest]])
  })

  test('that come while the others are listed count as they are told of, and not as they are listed', async () => {
    world.start()
    await world.watch.caughtUp('ns')
    const read = Promise.withResolvers<void>()
    world.reading = read.promise
    world.source.tell(new Error('connection reset'))
    await expect.poll(() => world.looked).toHaveLength(2) // listed again
    world.source.tell({ is: 'gone', namespace: 'ns', name: 'app' })
    const knowing = world.watch.caughtUp('ns')
    await expect.poll(() => world.said()).toEqual([])
    read.resolve()
    await knowing
    expect(world.said()).toEqual([])
  })

  test('that cannot be read are asked for again, and nobody is told that all is known', async () => {
    world.reading = Promise.reject(Failure.unavailable('containerd does not answer'))
    world.reading.catch(() => {})
    world.start()
    await expect(world.watch.caughtUp('ns')).rejects.toMatchObject({ code: 'unavailable' })
    world.reading = Promise.resolve()
    await world.watch.caughtUp('ns')
    expect(world.said()).toEqual([['app', same.digest]])
  })

  test('are not waited for where whoever answers has none', async () => {
    world.source.none = true
    world.start()
    await world.watch.caughtUp('ns')
    await world.watch.caughtUp('ns')
    expect(world.looked).toEqual([])
  })
})
