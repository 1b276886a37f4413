import { expect, test } from 'vitest'
import { type Checkable, holdComplete } from '../../src/mount/complete.ts'
import { READY_MISSING, READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'

const MIB = 1 << 20

/** A layer whose chunks are in these states, and what is asked of it. */
function layer(states: number[], size = 1000, fill: () => Promise<void> = async () => {}) {
  const asked: (number[] | 'reverify')[] = []
  const it: Checkable = {
    slots: { states: async () => Uint8Array.from(states), hold: async () => () => {} },
    chunks: { sizeOf: () => size } as unknown as Checkable['chunks'],
    filler: {
      fill(wanted: number[], priority: string, signal: AbortSignal) {
        expect(priority).toBe('demand')
        asked.push(wanted)
        return Promise.race([
          fill(),
          new Promise<void>((_, reject) => {
            if (signal.aborted) reject(signal.reason)
            signal.addEventListener('abort', () => reject(signal.reason))
          }),
        ])
      },
    } as unknown as Checkable['filler'],
    async reverify() {
      asked.push('reverify')
    },
  }
  return { it, asked }
}

const never = () => new AbortController().signal
const complete = async (...layers: { it: Checkable }[]) => {
  const held = await holdComplete(
    layers.map(({ it }) => it),
    never(),
  )
  return held.map((each) => each !== undefined)
}

test('a layer is complete when all of it is verified, and what an earlier life stored is checked first', async () => {
  expect(await complete(layer([]), layer([READY_VERIFIED, READY_VERIFIED]))).toEqual([true, true])
  const stored = layer([READY_STORED, READY_VERIFIED, READY_STORED])
  expect(await complete(stored)).toEqual([true])
  expect(stored.asked).toEqual([[0, 2]])
})

test('a layer that lacks a chunk is not checked at all', async () => {
  for (const lack of [READY_MISSING, 77]) {
    const missing = layer([READY_STORED, lack])
    expect(await complete(missing)).toEqual([false])
    expect(missing.asked).toEqual([])
  }
})

test('more than fits into the wait is checked in the background; the limit is that of all layers together', async () => {
  const [first, second, third] = [40 * MIB, 40 * MIB, 20 * MIB].map((size) => layer([READY_STORED], size))
  expect(await complete(...([first, second, third] as { it: Checkable }[]))).toEqual([true, false, true])
  expect([first?.asked, second?.asked, third?.asked]).toEqual([[[0]], ['reverify'], [[0]]])
})

test('a chunk that cannot be had, a slow disk and the end leave it to the session', async () => {
  const broken = layer([READY_STORED], 1, () => Promise.reject(new Error('away')))
  expect(await complete(broken)).toEqual([false])
  expect(broken.asked).toEqual([[0], 'reverify'])
  const slow = layer([READY_STORED], 1, () => new Promise(() => {}))
  expect(await complete(slow)).toEqual([false])
  const ending = new AbortController()
  const ended = holdComplete([layer([READY_STORED], 1, () => new Promise(() => {})).it], ending.signal)
  ending.abort()
  expect(await ended).toEqual([undefined])
})

test('a layer that loses a chunk before it is held is not complete', async () => {
  const { it } = layer([READY_VERIFIED])
  expect(await complete({ it: { ...it, slots: { ...it.slots, hold: async () => undefined } } })).toEqual([false])
  const failing = { ...it.slots, hold: () => Promise.reject(new Error('disk')) }
  expect(await complete({ it: { ...it, slots: failing } })).toEqual([false])
})
