// An image that is pulled: which of its layers are fetched whole, and which may be shown.
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { planUnits } from '../../src/format/formats.ts'
import type { Digest } from '../../src/image/digest.ts'
import { type LayerLease, type OpenLayer, WHOLE } from '../../src/layer/layer.ts'
import { PulledImage, type PulledImageParts } from '../../src/snapshotter/pulled-image.ts'
import { digest, FakeLeases, image, lazy, plain, proven } from '../stores/store.ts'

/** Lazy above plain above lazy. */
const app = image('app', [lazy('base'), plain('middle'), lazy('top')])
const [BASE, MIDDLE, TOP] = app.manifest.layers.map((each) => each.digest) as [Digest, Digest, Digest]

function world() {
  const leases = new FakeLeases()
  const said: string[] = []
  const asked: string[] = []
  const state = {
    /** Why a layer may not bear its DiffID, before it is proven and behind that. */
    why: new Map<Digest, string>(),
    whyProven: new Map<Digest, string>(),
    failing: new Map<Digest, Failure>(),
    whole: Promise.resolve(),
  }
  const provenNow = new Set<Digest>()
  // open for another image that has it, too
  const hold = (of: OpenLayer['descriptor'], format: string) => {
    const descriptor = { ...of }
    const tree = digest(`tree of ${descriptor.digest}`)
    return leases.hold(descriptor.digest, { descriptor, tree, format, together: undefined } as OpenLayer) // what is used of it
  }
  const parts: PulledImageParts = {
    layers: {
      plan: planUnits,
      open: async ({ shown }): Promise<LayerLease> => {
        const failure = state.failing.get(shown.digest)
        if (failure !== undefined) throw failure
        return hold(shown, 'lazy')
      },
      openEmpty: () => Promise.reject(new Error('a test needs it')),
      openWhole: async (descriptor, _, fetch) => {
        if (!fetch) return undefined
        asked.push(`whole ${descriptor.digest}`)
        await state.whole
        return hold(descriptor, WHOLE)
      },
      prove: async ({ descriptor }) => {
        asked.push(`prove ${descriptor.digest}`)
        provenNow.add(descriptor.digest)
        return proven(digest('any'))
      },
      keep: async () => {},
      everProven: async () => false,
      everRefuted: async () => false,
    },
    names: {
      meet: async (_, trees) => {
        asked.push(`meet ${(await trees()).map((each) => (each === undefined ? '-' : 'open'))}`)
      },
      take: async (_, __, { descriptor: { digest: of } }) => (provenNow.has(of) ? state.whyProven : state.why).get(of),
      restore: async () => {},
      whyHidden: () => undefined,
      isBelieved: () => false,
      prove: async () => {},
    },
    prefetch: async (_, { descriptor }) => void asked.push(`prefetch ${descriptor.digest}`),
    log: (message) => void said.push(message),
  }
  return { parts, leases, said, asked, state }
}

const treeOf = (pulled: PulledImage, place: number) => pulled.use(place, async ({ layer }) => layer.tree)

describe('an image that is pulled', () => {
  test('has its plain layer fetched whole and proven, while the lazy ones are there', async () => {
    const { parts, asked, state, said } = world()
    const fetched = Promise.withResolvers<void>()
    state.whole = fetched.promise
    const pulled = new PulledImage(app, parts)
    expect(await treeOf(pulled, 0)).toBe(digest(`tree of ${BASE}`))
    expect(await treeOf(pulled, 2)).toBe(digest(`tree of ${TOP}`))
    fetched.resolve()
    const { index, tree } = await pulled.use(1, async ({ layer }) => layer)
    expect([index, tree]).toEqual([undefined, digest(`tree of ${MIDDLE}`)])
    expect(asked).toContain('meet open,-,open') // nobody waits for the plain one to compare the others
    expect(asked.filter((each) => each.startsWith('whole'))).toEqual([`whole ${MIDDLE}`])
    expect(asked).toContain(`prove ${MIDDLE}`)
    expect(said).toEqual([expect.stringContaining(`${MIDDLE}, is fetched whole`)])
  })

  test('says what it shows: where it is from, which blob, and read by which index', async () => {
    const pulled = new PulledImage(app, world().parts)
    expect(await pulled.use(2, async ({ layer }) => layer)).toEqual({
      reference: 'example.com/app:1',
      manifest: app.digest,
      place: 2,
      diffId: app.config.diffIds[2],
      blob: TOP,
      index: pulled.said[2]?.index,
      tree: digest(`tree of ${TOP}`),
      together: false,
    })
    expect(pulled.said.map(({ index }) => index !== undefined)).toEqual([true, false, true])
  })

  test('has a layer that is not believed read whole first, and not shown if it still has no right to its name', async () => {
    const { parts, asked, state } = world()
    state.why.set(BASE, 'only claimed').set(TOP, 'only claimed')
    state.whyProven.set(TOP, 'its bytes have another DiffID')
    const pulled = new PulledImage(app, parts)
    expect(await treeOf(pulled, 0)).toBe(digest(`tree of ${BASE}`))
    await expect(treeOf(pulled, 2)).rejects.toMatchObject({ code: 'unsupported', why: 'its bytes have another DiffID' })
    expect(asked).toEqual(expect.arrayContaining([`prove ${BASE}`, `prove ${TOP}`]))
  })

  test('has layers that its client knows by their DiffIDs alone proven before anybody is shown them, though they are believed', async () => {
    const { parts, asked } = world()
    const pulled = new PulledImage(app, parts, new Set([0]))
    await treeOf(pulled, 0)
    await treeOf(pulled, 2)
    expect(asked).toContain(`prove ${BASE}`)
    expect(asked).not.toContain(`prove ${TOP}`)
  })

  test('has a layer fetched whole whose index is of no use, and not one whose registry is away', async () => {
    const { parts, state } = world()
    state.failing
      .set(BASE, Failure.corrupt('its index is no JSON'))
      .set(TOP, Failure.unavailable('the registry is away'))
    const pulled = new PulledImage(app, parts)
    expect(await treeOf(pulled, 0)).toBe(digest(`tree of ${BASE}`))
    await expect(treeOf(pulled, 2)).rejects.toMatchObject({ code: 'unavailable' })
    expect(pulled.isStale).toBe(false) // it failed just now
    expect(pulled.whyNeverUnpacked(2)).toBeUndefined()
  })

  test('keeps its layers open until nobody uses one', async () => {
    const { parts, leases } = world()
    const pulled = new PulledImage(app, parts)
    const done = Promise.withResolvers<void>()
    const using = pulled.use(0, () => done.promise)
    let isClosed = false
    const closing = pulled.close().then(() => {
      isClosed = true
    })
    await expect.poll(() => leases.held.size).toBe(3)
    expect(isClosed).toBe(false)
    done.resolve()
    await using
    await closing
    expect(leases.held.size).toBe(0)
  })
})
