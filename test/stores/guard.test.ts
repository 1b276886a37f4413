// That images which are only believed are kept apart, through the image store: who comes with something else under one DiffID is not given
// the other's files, whoever comes first.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { type Digest, hex } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { layerId } from '../../src/stores/chain.ts'
import { trustAll, trustNone } from '../../src/stores/identity.ts'
import type { AdditionalImageStore } from '../../src/stores/image-store.ts'
import { runs } from '../fixtures/runs.ts'
import { BUILT_OF, list, treeOf, World } from './image-world.ts'
import { digest, lazy, plain, proven } from './store.ts'

const TAR = digest('tar of the victim')
const ID = hex(TAR)
const GOOD = lazy('good')
const EVIL = lazy('evil')
/** The victim's blob, by an index that shows something else. */
const LIE = lazy('good', { annotations: { [TOC_DIGEST]: digest('lie'), [BUILT_OF]: digest('lie') } })

/** A store that believes every image, and keeps them apart. `files` says whose tree a layer's directory shows. */
async function guardedStore(keepsApart = true) {
  const world = new World({ trustsDiffIds: trustAll }, keepsApart)
  return { world, store: await world.show(), ...looks(world) }
}

function looks(world: World) {
  const trees = new Map<number, Digest>()
  const { attach } = world.parts
  world.parts.attach = async (layer, path, image) => {
    // as in a mount, each tree has slots of its own
    const slot = await attach(layer, [...path, layer.tree], image)
    trees.set(slot, layer.tree)
    return slot
  }
  const files = (id: string) => {
    const slot = world.files.get(`/images/overlay/${id}/diff`)
    return typeof slot === 'number' ? trees.get(slot) : slot === undefined ? undefined : 'nothing'
  }
  return { files }
}

/** The blobs that can be read: of the victim, and of the others. */
const readable = (world: World, ...which: Descriptor[]) => {
  for (const { digest: blob } of which) {
    world.tars.set(blob, proven(blob === GOOD.digest ? TAR : digest(`tar of ${blob}`)))
  }
}

describe('an image that claims the DiffID of a victim', () => {
  const check = (
    title: string,
    hostile: Descriptor,
    { keepsApart = true, read = [GOOD, EVIL] }: { keepsApart?: boolean; read?: Descriptor[] },
    expected: { hostileFirst: unknown; victimFirst: unknown },
  ) =>
    test(title, async () => {
      for (const order of ['hostileFirst', 'victimFirst'] as const) {
        const { world, store, files } = await guardedStore(keepsApart)
        readable(world, ...read)
        const images = [world.push('hostile', [hostile], [TAR]), world.push('victim', [GOOD], [TAR])]
        if (order === 'victimFirst') images.reverse()
        const alone = await list(store, images[0] as string)
        // lazy at once
        expect([alone.listed.length, world.guarded.hurried]).toEqual([1, []])
        await list(store, images[1] as string)
        expect(files(ID)).toEqual(expected[order])
      }
    })
  const kept = { hostileFirst: treeOf(GOOD.digest), victimFirst: treeOf(GOOD.digest) }
  check('gets the victim’s files, and not the victim its', EVIL, {}, kept)
  check('on the victim’s own blob, with another index, too', LIE, {}, kept)
  check('whose registry does not give its blob, too', EVIL, { read: [GOOD] }, kept)
  check(
    'is shown to nobody when neither blob can be read',
    EVIL,
    { read: [] },
    { hostileFirst: 'nothing', victimFirst: 'nothing' },
  )
  check('is found out where only its own blob can be read', EVIL, { read: [EVIL] }, kept)
  check(
    'is mistaken for the victim where all images trust one another',
    EVIL,
    { keepsApart: false },
    {
      hostileFirst: treeOf(EVIL.digest),
      victimFirst: treeOf(GOOD.digest),
    },
  )
})

test('an ordinary layer of the victim’s is as good as a lazy one: who is shown under its DiffID is proven or hidden', async () => {
  const { world, store, files } = await guardedStore()
  await list(store, world.push('hostile', [EVIL], [TAR]))
  expect(files(ID)).toBe(treeOf(EVIL.digest))
  const large = plain('plain', 1 << 30)
  expect(await list(store, world.push('victim', [large], [TAR]))).toMatchObject({ listed: [], left: [digest('plain')] })
  expect(world.guarded.hurried).toEqual([EVIL.digest])
  expect(files(ID)).toBe('nothing')
})

test('an image that is told of first keeps a later one from its DiffID, also where it was left to the engine', async () => {
  const { world, store, files } = await guardedStore()
  await list(store, world.push('victim', [plain('plain', 1 << 30)], [TAR]))
  const { listed } = await list(store, world.push('hostile', [EVIL], [TAR]))
  // what its index says of it is proven
  expect([listed, files(ID)]).toMatchObject([[{ by: 'index' }], undefined])
})

test('an image that is told of while another’s record is being kept is not given the other’s files', async () => {
  const { world, store, files } = await guardedStore()
  const victim = world.push('victim', [plain('plain', 1 << 30)], [TAR])
  const { keep } = world.parts.listings
  world.parts.listings.keep = async (listed) => {
    // the hostile image has claimed its ID, and is not shown yet
    world.parts.listings.keep = keep
    await list(store, victim)
    await keep(listed)
  }
  await list(store, world.push('hostile', [EVIL], [TAR]))
  expect([files(ID), world.guarded.contested]).toMatchObject(['nothing', [{ diffId: TAR, blob: EVIL.digest }]])
})

test('an image whose layers take long to open is kept apart from the moment that its manifest is known', async () => {
  const { world, store, files } = await guardedStore()
  await list(store, world.push('hostile', [EVIL], [TAR]))
  const { open } = world.parts.layers
  const slow = Promise.withResolvers<void>()
  world.parts.layers.open = async (...opening) => {
    await slow.promise
    return await open(...opening)
  }
  const victim = list(store, world.push('victim', [plain('plain', 1 << 30), lazy('slow')], [TAR]))
  await expect.poll(() => files(ID), { timeout: 10_000 }).toBe('nothing')
  slow.resolve()
  await victim
})

test('an image that is not believed is kept apart from one that is', async () => {
  const world = new World(
    { trustsDiffIds: async ({ reference }) => (reference.tag === 'hostile' ? true : 'not ours') },
    true,
  )
  const { files } = looks(world)
  const store = await world.show()
  await list(store, world.push('hostile', [EVIL], [TAR]))
  await list(store, world.push('victim', [GOOD], [TAR]))
  // the victim has a name of its own, by its index
  expect(files(ID)).toBe('nothing')
  expect(world.entries).toHaveLength(2)
})

test('what is proven is never taken away, whoever comes, and nothing is read for it again', async () => {
  const { world, store, files } = await guardedStore()
  readable(world, GOOD)
  await list(store, world.push('victim', [GOOD], [TAR]))
  world.guarded.idle()
  for (const tag of ['1', '2', '3']) await list(store, world.push(tag, [lazy(`evil ${tag}`)], [TAR]))
  expect(files(ID)).toBe(treeOf(GOOD.digest))
  expect(world.guarded.hurried).not.toContain(GOOD.digest)
})

test('two blobs of one tar are both served once both are proven', async () => {
  const { world, store, files } = await guardedStore()
  const other = lazy('the same in another blob')
  for (const each of [GOOD, other]) world.tars.set(each.digest, proven(TAR))
  await list(store, world.push('one', [GOOD], [TAR]))
  expect(await list(store, world.push('two', [other], [TAR]))).toMatchObject({ listed: [{ id: ID }], left: [] })
  expect(files(ID)).toBe(treeOf(GOOD.digest))
  expect(world.entries.map((each) => each['compressed-diff-digest'])).toEqual([GOOD.digest, other.digest])
})

test('more bytes than come while an engine waits are not read at once: who is believed only is hidden until the link is idle', async () => {
  const { world, store, files } = await guardedStore()
  const large = lazy('good', { size: (128 << 20) + 1 })
  readable(world, GOOD, EVIL)
  const victim = world.push('victim', [large], [TAR])
  await list(store, victim)
  await list(store, world.push('hostile', [plain('plain', 1 << 30)], [TAR]))
  expect([files(ID), world.guarded.hurried]).toEqual(['nothing', []])
  world.guarded.idle()
  await expect.poll(() => files(ID)).toBe(treeOf(GOOD.digest))
})

describe('whatever is only believed is proven when the link is idle, and a liar is cut off:', () => {
  for (const [what, hostile] of [
    ['one that claims a DiffID of another', EVIL],
    ['one whose index shows another tree', LIE],
  ] as const) {
    for (const keepsApart of [true, false]) {
      test(`${what}${keepsApart ? '' : ', where all images trust one another, too'}`, async () => {
        const { world, store, files } = await guardedStore(keepsApart)
        readable(world, GOOD, EVIL)
        await list(store, world.push('hostile', [hostile], [TAR]))
        expect(files(ID)).toBe(hostile === LIE ? treeOf(digest('lie')) : treeOf(EVIL.digest))
        world.guarded.idle()
        expect(files(ID)).toBe('nothing')
        expect(world.entries).toMatchObject([{ id: ID }])
        // who has it in use finds it, and nobody else: neither by the blob nor by the DiffID
        const named = () => JSON.stringify(world.entries).includes(hostile.digest)
        if (hostile === EVIL) await expect.poll(named).toBe(false)
        expect(world.messages).toContainEqual(expect.stringContaining('is not shown as'))
        await list(store, world.push('victim', [GOOD], [TAR]))
        expect(files(ID)).toBe(treeOf(GOOD.digest))
      })
    }
  }

  test('also what was listed by an earlier process', async () => {
    const { world, store } = await guardedStore()
    await list(store, world.push('hostile', [EVIL], [TAR]))
    const next = world.restarted({ trustsDiffIds: trustAll }, true)
    const { files } = looks(next)
    readable(next, EVIL)
    await next.show()
    expect([files(ID), next.guarded.waiting.length]).toEqual([treeOf(EVIL.digest), 1])
    next.guarded.idle()
    expect(files(ID)).toBe('nothing')
    // engines that know the layer find it in the next life, too, without files
    const last = next.restarted({ trustsDiffIds: trustAll }, true)
    const after = looks(last)
    await last.show()
    expect([last.entries.map(({ id }) => id), after.files(ID)]).toEqual([[ID], 'nothing'])
    expect(JSON.stringify(last.entries)).not.toContain(EVIL.digest)
  })
})

test('who lost a DiffID does not get it back by a restart', async () => {
  const { world, store, files } = await guardedStore()
  await list(store, world.push('hostile', [EVIL], [TAR]))
  await list(store, world.push('victim', [GOOD], [TAR]))
  expect([files(ID), world.guarded.contested]).toMatchObject(['nothing', [{ diffId: TAR, blob: EVIL.digest }]])
  const next = world.restarted({ trustsDiffIds: trustAll }, true)
  const after = looks(next)
  await next.show()
  expect(after.files(ID)).toBe('nothing')
  readable(next, EVIL, GOOD)
  next.guarded.idle()
  expect([after.files(ID), next.guarded.contested]).toEqual(['nothing', []])
})

// Images of one to three layers over few DiffIDs; each layer is the honest one of its DiffID, or one of the hostile ones.
const TARS = ['a', 'b'].map((each) => digest(`tar ${each}`))
const honest = (i: number) => lazy(`honest ${i}`)
const layer = fc.record({
  tar: fc.nat(TARS.length - 1),
  as: fc.constantFrom('honest', 'honest', 'plain', 'evil', 'other evil', 'lie'),
})
type Layer = { tar: number; as: string }
const descriptorOf = ({ tar, as }: Layer): Descriptor => {
  if (as === 'honest') return honest(tar)
  if (as === 'plain') return plain(`plain ${tar}`, 1 << 30)
  if (as !== 'lie') return lazy(`${as} ${tar}`)
  return lazy(`honest ${tar}`, { annotations: { [TOC_DIGEST]: digest('lie'), [BUILT_OF]: digest(`lie ${tar}`) } })
}
const truth = ({ tar, as }: Layer): Digest =>
  as === 'honest' || as === 'plain' ? (TARS[tar] as Digest) : digest(`own tar of ${as}`)

/** IDs of an image's layers, as engines make them of the DiffIDs that are the truth. */
function idsOf(layers: readonly Layer[]): string[] {
  const ids: string[] = []
  for (const each of layers) ids.push(layerId(ids.at(-1), { by: 'diffid', digest: TARS[each.tar] as Digest }))
  return ids
}

test('no honest image is ever given files of another, in whatever order they come, whatever can be read, over restarts', async () => {
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ pull: fc.nat(4) }) },
    { weight: 2, arbitrary: fc.record({ readable: fc.record({ tar: fc.nat(1), as: layer.map(({ as }) => as) }) }) },
    { weight: 2, arbitrary: fc.constant('idle' as const) },
    { weight: 1, arbitrary: fc.constant('restart' as const) },
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(layer, { minLength: 1, maxLength: 3 }), { minLength: 2, maxLength: 5 }),
      fc.array(step, { minLength: 2, maxLength: 14 }),
      async (images, steps) => {
        let world = new World({ trustsDiffIds: trustAll }, true)
        let { files } = looks(world)
        let store: AdditionalImageStore = await world.show()
        const references = images.map((layers, i) =>
          world.push(
            `${i}`,
            layers.map(descriptorOf),
            layers.map(({ tar }) => TARS[tar] as Digest),
          ),
        )
        /** What engines refer to in the store for ever, and the tree that it is to them. */
        const used = new Map<string, number>()
        for (const each of steps) {
          if (each === 'idle') world.guarded.idle()
          else if (each === 'restart') {
            const { tars } = world
            world = world.restarted({ trustsDiffIds: trustAll }, true)
            for (const [blob, verdict] of tars) world.tars.set(blob, verdict)
            files = looks(world).files
            store = await world.show()
          } else if ('readable' in each) {
            const { readable: of } = each
            world.tars.set(descriptorOf(of).digest, proven(truth(of.as === 'lie' ? { ...of, as: 'honest' } : of)))
          } else {
            const at = each.pull % images.length
            const layers = images[at] as Layer[]
            await list(store, references[at] as string)
            if (layers.every(({ as }) => as === 'honest' || as === 'plain')) {
              // an engine uses whatever has the ID, and else what it unpacks itself
              for (const [i, id] of idsOf(layers).entries()) {
                if (files(id) !== undefined) used.set(id, (layers[i] as Layer).tar)
              }
            }
          }
          await new Promise((done) => setImmediate(done))
          for (const [id, tar] of used) {
            expect([treeOf(honest(tar).digest), 'nothing', undefined]).toContain(files(id))
          }
        }
      },
    ),
    { numRuns: runs(60) },
  )
}, 60_000)

test('where nothing is believed there is nothing to keep apart', async () => {
  const world = new World({ trustsDiffIds: trustNone })
  const store = await world.show()
  await list(store, world.push('1', [GOOD], [TAR]))
  expect(world.guarded.waiting).toEqual([])
})
