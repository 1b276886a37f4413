import { expect, test } from 'vitest'
import { areComplete, type Checkable, holdComplete } from '../../src/mount/complete.ts'
import { READY_MISSING, READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'

const MIB = 1 << 20

/** A layer whose chunks are in these states, and how often it was asked to verify them; `verify` does it, or ends without. */
function layer(
  states: number[],
  size = 1000,
  verify: (states: number[]) => Promise<void> = async (all) => void all.fill(1),
) {
  const asked = { times: 0 }
  const it: Checkable = {
    slots: { states: async () => Uint8Array.from(states) },
    chunks: { sizeOf: () => size } as unknown as Checkable['chunks'],
    async reverify() {
      asked.times++
      await verify(states)
    },
  }
  return { it, asked }
}

const never = () => new AbortController().signal
const complete = (...layers: { it: Checkable }[]) =>
  areComplete(
    layers.map(({ it }) => it),
    never(),
  )

test('a layer is complete when all of it is verified, and what an earlier life stored is checked first', async () => {
  expect(await complete(layer([]), layer([READY_VERIFIED, READY_VERIFIED]))).toEqual([true, true])
  const stored = layer([READY_STORED, READY_VERIFIED, READY_STORED])
  expect(await complete(stored)).toEqual([true])
  expect(stored.asked.times).toBe(1)
})

test('a layer that lacks a chunk is not checked at all', async () => {
  for (const lack of [READY_MISSING, 77]) {
    const missing = layer([READY_STORED, lack])
    expect(await complete(missing)).toEqual([false])
    expect(missing.asked.times).toBe(0)
  }
})

test('nobody waits for more than is checked in a moment, which is that of all layers together; it is checked all the same', async () => {
  const [first, second, third] = [40 * MIB, 40 * MIB, 20 * MIB].map((size) => layer([READY_STORED], size))
  const layers = [first, second, third] as { it: Checkable }[]
  expect(await complete(...layers)).toEqual([true, false, true])
  expect([first?.asked, second?.asked, third?.asked]).toEqual([{ times: 1 }, { times: 1 }, { times: 1 }])
  expect(await complete(...layers)).toEqual([true, true, true])
})

test('layers are checked side by side', async () => {
  const both = Promise.withResolvers<void>()
  let begun = 0
  const verify = async (states: number[]) => {
    if (++begun === 2) both.resolve()
    await both.promise
    states.fill(READY_VERIFIED)
  }
  expect(await complete(layer([READY_STORED], 1, verify), layer([READY_STORED], 1, verify))).toEqual([true, true])
})

test('a chunk that cannot be had, a slow disk and the end leave it to the session', async () => {
  expect(await complete(layer([READY_STORED], 1, async () => {}))).toEqual([false])
  expect(await complete(layer([READY_STORED], 1, () => new Promise(() => {})))).toEqual([false])
  const ending = new AbortController()
  const ended = areComplete([layer([READY_STORED], 1, () => new Promise(() => {})).it], ending.signal)
  ending.abort()
  expect(await ended).toEqual([false])
})

test('a complete layer is held, unless it lost a chunk meanwhile, or the disk fails', async () => {
  const release = () => {}
  const held = async (states: number[], hold: () => Promise<(() => void) | undefined>) => {
    const { it } = layer(states)
    return (await holdComplete([{ ...it, slots: { ...it.slots, hold } }], never()))[0]
  }
  expect(await held([READY_VERIFIED], async () => release)).toBe(release)
  expect(await held([READY_VERIFIED], async () => undefined)).toBeUndefined()
  expect(await held([READY_VERIFIED], () => Promise.reject(new Error('disk')))).toBeUndefined()
  expect(await held([READY_MISSING], async () => release)).toBeUndefined()
})
