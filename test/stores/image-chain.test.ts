import { setImmediate as turn } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { planUnits } from '../../src/format/formats.ts'
import type { LayerLease } from '../../src/layer/layer.ts'
import { trustNone } from '../../src/stores/identity.ts'
import { type ChainParts, openChain } from '../../src/stores/image-chain.ts'
import { image, lazy } from './store.ts'

test('a layer that fails while one below it is still being opened ends the chain there, and nothing else', async () => {
  const [below, above] = [lazy('below'), lazy('above')]
  const { promise: opening, reject } = Promise.withResolvers<LayerLease>()
  const layers = {
    plan: planUnits,
    open: ({ shown }: { shown: unknown }) =>
      shown === below ? opening : Promise.reject(Failure.corrupt('the one above is damaged')),
    everRefuted: async () => false,
  } as unknown as ChainParts['layers'] // what a chain uses of it
  const unhandled: unknown[] = []
  const watch = (reason: unknown) => void unhandled.push(reason)
  process.on('unhandledRejection', watch)
  onTestFinished(() => void process.off('unhandledRejection', watch))
  const chain = openChain(
    image('app', [below, above]),
    { layers, trustsDiffIds: trustNone, isAmbiguous: () => false, whyNot: () => undefined },
    'none',
  )
  await turn()
  await turn()
  expect(unhandled).toEqual([])
  reject(Failure.unsupported('the one below is odd'))
  expect(await chain).toMatchObject({ links: [], why: expect.stringContaining('the one below is odd') })
})
