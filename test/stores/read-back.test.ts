// What a restarted agent lists again when its cache is damaged: at once from disk, in bounded time from registries, and later.
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, onTestFinished, test, vi } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { AdditionalImageStore, ImageStoreParts } from '../../src/stores/image-store.ts'
import { type Left, listLeft, readBack } from '../../src/stores/read-back.ts'
import { diffId, list, World } from './image-world.ts'
import { digest, lazy, plain, proven, refuted } from './store.ts'

const never = () => new Promise<never>(() => {})

/** A world in which these images were listed, and the next process over it, whose cache has lost what `lose` says. */
async function restarted(
  listed: (world: World, store: AdditionalImageStore) => Promise<void>,
  more: (next: World) => Partial<ImageStoreParts> = () => ({}),
) {
  const world = new World()
  await listed(world, await world.show())
  const next: World = world.restarted()
  Object.assign(next.parts, more(next))
  const closing = new AbortController()
  onTestFinished(() => closing.abort())
  const parts = { ...next.parts, signal: closing.signal }
  return { world, next, parts, closing }
}

const ids = (world: World) => world.entries.map(({ id }) => id).sort()

test('a manifest that is gone is fetched by its digest before anybody is shown anything', async () => {
  const { world, next } = await restarted(
    async (world, store) => {
      await list(store, world.push('1', [lazy('base')]))
      await list(store, world.push('2', [lazy('other')]))
    },
    (next) => ({
      images: {
        kept: async ({ digest }) => {
          const found = [...next.known.values()].find((each) => each.digest === digest)
          return found?.reference.tag === '1' ? undefined : found
        },
        resolve: async (reference) => {
          next.resolved.push(`${reference.tag} ${reference.digest}`)
          const found = [...next.known.values()].find((each) => each.digest === reference.digest)
          if (found === undefined) throw Failure.missing('no such manifest')
          return { ...found, reference }
        },
      },
    }),
  )
  await next.show()
  expect(next.resolved).toEqual([`1 ${world.known.get('example.com/app:1')?.digest}`])
  expect(ids(next)).toEqual(ids(world))
  expect(next.versions).toHaveLength(1)
  expect(next.left).toEqual([])
})

test('a tag is as good while it means the same, and no more', async () => {
  for (const isSame of [true, false]) {
    const { world, next } = await restarted(
      async (world, store) => void (await list(store, world.push('1', [lazy('base')]))),
      (next) => ({
        images: {
          kept: async () => undefined,
          resolve: async (reference) => {
            const found = next.known.get('example.com/app:1')
            if (reference.digest !== undefined || found === undefined) throw Failure.missing('no such manifest')
            return isSame ? found : { ...found, digest: digest('moved') }
          },
        },
      }),
    )
    await next.show()
    expect(ids(next)).toEqual(isSame ? ids(world) : [])
    expect(next.left.map(({ listed }) => listed.reference)).toEqual(isSame ? [] : ['example.com/app:1'])
  }
})

test('a registry that is silent holds up nothing that disk has, and the start for as long as it may', async () => {
  const { next, parts } = await restarted(
    async (world, store) => {
      await list(store, world.push('1', [lazy('base')]))
      await list(store, world.push('2', [lazy('other')]))
    },
    (next) => ({
      images: {
        kept: async ({ digest }) =>
          [...next.known.values()].find((each) => each.digest === digest && each.reference.tag === '2'),
        resolve: never,
      },
    }),
  )
  const { chains, left } = await readBack(parts, 10)
  expect(chains.map(({ image }) => image.reference.tag)).toEqual(['2'])
  expect(left.map(({ listed }) => listed.reference)).toEqual(['example.com/app:1'])
  expect(next.messages).toEqual([expect.stringContaining('app:1: its layers are not listed again: manifest')])
})

test('what a registry gives back late is listed then, and what it never has is asked for until the end', async () => {
  const late = Promise.withResolvers<void>()
  const { world, next, parts, closing } = await restarted(
    async (world, store) => {
      await list(store, world.push('1', [lazy('base'), lazy('top')]))
      await list(store, world.push('2', [lazy('lost')]))
    },
    (next) => ({
      images: {
        kept: async () => undefined,
        resolve: async (reference) => {
          const found = [...next.known.values()].find((each) => each.digest === reference.digest)
          if (found?.reference.tag !== '1') throw Failure.missing('no such manifest')
          await late.promise
          return { ...found, reference }
        },
      },
    }),
  )
  const { chains, left } = await readBack(parts, 10)
  expect(chains).toEqual([])
  expect(left.map(({ attempt }) => attempt !== undefined)).toEqual([true, false])
  const again: string[] = []
  const listing = listLeft(parts, left, async ({ image }) => void again.push(image.digest))
  late.resolve()
  await vi.waitFor(() => expect(again).toEqual([world.known.get('example.com/app:1')?.digest]))
  expect(next.messages).toContain('example.com/app:1: its layers are listed again')
  closing.abort()
  await listing
})

test('a layer that bore its DiffID by a proof that is gone is proven again; one that was only believed is not', async () => {
  const { world, next } = await restarted(async (world, store) => {
    world.tars.set(digest('base'), proven(diffId(0, '1').digest))
    await list(store, world.push('1', [lazy('base')]), 'all')
    world.parts.believe = async () => true
    await list(store, world.push('2', [plain('plain')]))
    await list(store, world.push('3', [{ ...lazy('claimed'), annotations: {} }]))
  })
  expect(world.listed.map(({ proven }) => proven)).toContainEqual([true])
  next.verdicts.clear()
  next.tars.set(digest('base'), proven(diffId(0, '1').digest))
  await next.show()
  expect(next.verdicts.get(digest('base'))).toEqual(proven(diffId(0, '1').digest))
  expect(next.entries.map((each) => each['diff-digest'])).toEqual([diffId(0, '1').digest])
  expect([...next.verdicts.keys()]).toEqual([digest('base')])
})

test('a layer whose proof is gone and whose bytes are another tar’s does not bear the name', async () => {
  for (const found of [proven(digest('another tar')), refuted(diffId(0, '1').digest)]) {
    const { next } = await restarted(async (world, store) => {
      world.tars.set(digest('base'), proven(diffId(0, '1').digest))
      await list(store, world.push('1', [lazy('base')]), 'all')
    })
    next.verdicts.clear()
    next.tars.set(digest('base'), found)
    await next.show()
    expect(next.entries).toEqual([])
  }
})

test('what goes on behind the start ends with the agent', async () => {
  const { parts, closing } = await restarted(
    async (world, store) => void (await list(store, world.push('1', [lazy('base')]))),
    () => ({
      images: {
        kept: async () => undefined,
        resolve: async () => {
          throw Failure.unavailable('the registry is away')
        },
      },
    }),
  )
  const { left } = await readBack(parts)
  const listing = listLeft(parts, left as Left[], async () => {})
  await sleep(0)
  closing.abort()
  await listing
})
