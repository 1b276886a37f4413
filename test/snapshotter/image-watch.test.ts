// Images that containerd is given, and whose layers it never asks for because it has others under their chains.
import { expect, test } from 'vitest'
import { planUnits } from '../../src/format/formats.ts'
import type { Digest } from '../../src/image/digest.ts'
import type { ImageSource, ImageTarget } from '../../src/snapshotter/image-events.ts'
import { watchImages } from '../../src/snapshotter/image-watch.ts'
import type { PulledImage } from '../../src/snapshotter/pulled-image.ts'
import type { SaidLayer } from '../../src/snapshotter/said-layers.ts'
import { digest, image, lazy } from '../stores/store.ts'

const same = image('same', [lazy('one')])
const other = image('other', [lazy('two')])
const images = new Map([same, other].map((each) => [each.digest, each]))

/** Tells of images when the test says so; a connection that breaks is made again. */
class Source implements Pick<ImageSource, 'all' | 'changes'> {
  tell: (target: ImageTarget) => void = () => {}
  break: () => void = () => {}
  connections = 0
  async all(namespace: string) {
    return namespace === 'ns' ? [{ namespace, name: 'app', digest: same.digest }] : []
  }
  async *changes(begun: () => void, signal: AbortSignal) {
    this.connections++
    begun()
    while (!signal.aborted) {
      const next = Promise.withResolvers<ImageTarget>()
      this.tell = next.resolve
      this.break = () => next.reject(new Error('connection reset'))
      signal.addEventListener('abort', this.break)
      yield await next.promise
    }
  }
}

test('those that differ from what is shown are opened, the others cost nothing, and a broken connection is made again', async () => {
  const end = new AbortController()
  const source = new Source()
  const opened: string[] = []
  const looked: Digest[] = []
  const replaced: string[] = []
  const watching = watchImages({
    source,
    finder: {
      manifestOf: async (_, of) => {
        const found = images.get(of)
        looked.push(of)
        return found && { manifest: found.manifest, chain: ['chain0'], digest: of }
      },
    },
    pulls: {
      open: async (namespace, of, said) => {
        opened.push(`${namespace} ${said}`)
        return { image: images.get(of) } as PulledImage // what is used of it
      },
    },
    replacements: [
      {
        namespaces: () => new Set(['ns']),
        differs: (_, __, said: readonly SaidLayer[]) => said[0]?.blob !== digest('one'),
        replace: (namespace, _, chain) => {
          replaced.push(`${namespace} ${chain}`)
          return new Promise(() => {}) // its registry brings nothing
        },
      },
    ],
    layers: { plan: planUnits },
    platform: { os: 'linux', architecture: 'amd64' },
    signal: end.signal,
    log: () => {},
  })
  await expect.poll(() => looked).toEqual([same.digest])
  source.tell({ namespace: 'ns', name: 'registry.example.com/other:1', digest: other.digest })
  await expect.poll(() => replaced).toEqual(['ns chain0'])
  expect(opened).toEqual(['ns registry.example.com/other:1'])
  source.break()
  await expect.poll(() => source.connections).toBe(2)
  await expect.poll(() => looked).toEqual([same.digest, other.digest, same.digest])
  end.abort()
  await watching
  expect(opened).toHaveLength(1)
})
