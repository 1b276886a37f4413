// Readers, prefetches, cancellations and faults in any order: what must hold in all of them.
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { Priority } from '../../src/image/blob.ts'
import { READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'
import { runs } from '../fixtures/runs.ts'
import { type ChunkAt, Layer } from './layer.ts'

const CHUNKS = 24
const LIMITS = {
  demand: { gapMaxBytes: 8, runMaxBytes: 120 },
  prefetch: { gapMaxBytes: 8, runMaxBytes: 160 },
  background: { gapMaxBytes: 8, runMaxBytes: 160 },
}
const LANES = {
  demand: { maxBytes: 240, maxRequests: 4 },
  prefetch: { maxBytes: 160, maxRequests: 2 },
  background: { maxBytes: 160, maxRequests: 2 },
}

const sizes = fc.array(fc.record({ length: fc.integer({ min: 1, max: 60 }), gap: fc.nat(16) }), {
  minLength: CHUNKS,
  maxLength: CHUNKS,
})
const wishes = fc.array(
  fc.record({
    after: fc.nat(6),
    chunks: fc.array(fc.nat(CHUNKS - 1), { minLength: 1, maxLength: CHUNKS }),
    priority: fc.constantFrom<Priority>('demand', 'prefetch'),
    cancelAfter: fc.option(fc.nat(12), { nil: undefined }),
  }),
  { minLength: 1, maxLength: 12 },
)

const scaled = <T extends Record<string, Record<string, number>>>(limits: T, unit: number): T =>
  JSON.parse(JSON.stringify(limits), (key, value) => (key.endsWith('Bytes') ? value * unit : value))

// Small chunks on a link of which nothing is known; and such that neighbours of misses come along, all the time.
test.each([
  { unit: 1, roundTripBytes: 0, numRuns: runs(30) },
  { unit: 512, roundTripBytes: 256 << 10, numRuns: runs(100) },
])(
  'in any interleaving each wish is told of each chunk once, rightly, within the budget, and nothing is left: $roundTripBytes',
  async ({ unit, roundTripBytes, numRuns }) => {
    const limits = scaled(LIMITS, unit)
    const lanes = scaled(LANES, unit)
    let alongBytes = 0
    await fc.assert(
      fc.asyncProperty(
        sizes,
        wishes,
        fc.array(fc.nat(5), { minLength: 1, maxLength: 50 }),
        fc.array(fc.constantFrom(0, READY_STORED, READY_VERIFIED), { minLength: CHUNKS, maxLength: CHUNKS }),
        fc.uniqueArray(fc.nat(CHUNKS - 1), { maxLength: 8 }),
        fc.dictionary(fc.nat(CHUNKS - 1).map(String), fc.integer({ min: 1, max: 4 })),
        fc.array(fc.nat(20), { maxLength: 4 }),
        async (made, wanted, delays, states, rotten, corrupt, failures) => {
          let at = 0
          const chunks = made.map(({ length, gap }, i): ChunkAt => {
            const start = at + gap * unit
            at = start + length * unit
            return { blob: i < CHUNKS / 2 ? 0 : 1, stored: { start, end: at } }
          })
          let delay = 0
          const layer = new Layer({
            chunks,
            limits,
            budget: lanes,
            roundTripBytes,
            halves: true,
            delay: () => delays[delay++ % delays.length] as number,
          })
          layer.states.set(states)
          for (const chunk of rotten) layer.rotten.add(chunk)
          for (const [chunk, times] of Object.entries(corrupt)) layer.corrupt.set(Number(chunk), times)
          let read = 0
          layer.failing = () => (failures.includes(read++) ? Failure.unavailable('at random') : undefined)

          const told = wanted.map(() => new Map<number, unknown[]>())
          const ends: Promise<void>[] = []
          for (const [i, wish] of wanted.entries()) {
            for (let left = wish.after; left > 0; left--) await turn()
            const distinct = new Set(wish.chunks)
            const controller = new AbortController()
            ends.push(
              new Promise((resolve) => {
                let left = distinct.size
                const settled = (chunk: number, error?: unknown) => {
                  const before = told[i]?.get(chunk) ?? []
                  told[i]?.set(chunk, [...before, error])
                  if (error === undefined) expect(layer.states[chunk]).toBe(READY_VERIFIED)
                  if (--left === 0) resolve()
                }
                layer.filler.fillEach(wish.chunks, wish.priority, settled, controller.signal)
              }),
            )
            if (wish.cancelAfter !== undefined) {
              void (async () => {
                for (let left = wish.cancelAfter ?? 0; left > 0; left--) await turn()
                controller.abort()
              })()
            }
          }
          await Promise.all(ends)
          for (const [i, wish] of wanted.entries()) {
            for (const chunk of new Set(wish.chunks)) {
              const [error, ...more] = told[i]?.get(chunk) ?? ['not told']
              expect(more).toEqual([])
              if (error === undefined) continue
              expect(error).toBeInstanceOf(Failure)
              const { code } = error as Failure
              if (code === 'aborted') expect(wish.cancelAfter).toBeDefined()
              if (code === 'corrupt') expect(corrupt).toHaveProperty(String(chunk))
              if (code === 'unavailable') expect(failures).not.toEqual([])
            }
          }
          for (const priority of ['demand', 'prefetch'] as const) {
            expect(layer.most[priority]).toBeLessThanOrEqual(
              lanes[priority].maxBytes + (priority === 'prefetch' ? 2 * roundTripBytes : 0),
            )
          }
          for (const each of layer.reads) {
            const limit = Math.max(limits[each.priority].runMaxBytes, roundTripBytes / 2)
            expect(each.range.end - each.range.start).toBeLessThanOrEqual(limit)
          }
          // nothing is left, and nothing is remembered
          for (let left = 40; left > 0; left--) await turn()
          expect([layer.budget.bytes('demand'), layer.budget.bytes('prefetch')]).toEqual([0, 0])
          expect([layer.open, [...layer.decoding]]).toEqual([[], []])
          layer.failing = undefined
          layer.corrupt.clear()
          const { joined } = layer.filler.counters
          await layer.filler.fill(Array(CHUNKS).keys(), 'demand')
          expect(layer.filler.counters.joined).toBe(joined)
          expect(layer.states.every((state) => state === READY_VERIFIED)).toBe(true)
          await layer.filler.close()
          expect(layer.budget.shelf.bytes).toBe(0)
          alongBytes += layer.filler.counters.nearbyBytes
        },
      ),
      { numRuns },
    )
    expect(alongBytes > 0).toBe(roundTripBytes > 0) // else it shows nothing
  },
)

test('closing at any moment tells everybody and leaves nothing', async () => {
  await fc.assert(
    fc.asyncProperty(
      wishes,
      fc.array(fc.nat(5), { minLength: 1, maxLength: 50 }),
      fc.nat(25),
      fc.array(fc.constantFrom(0, READY_STORED), { minLength: CHUNKS, maxLength: CHUNKS }),
      async (wanted, delays, closeAfter, states) => {
        let delay = 0
        const chunks = Array.from({ length: CHUNKS }, (_, i) => ({
          blob: 0,
          stored: { start: i * 50, end: i * 50 + 40 },
        }))
        const layer = new Layer({
          chunks,
          limits: LIMITS,
          budget: LANES,
          halves: true,
          delay: () => delays[delay++ % delays.length] as number,
        })
        layer.states.set(states)
        layer.rotten.add(3).add(4)
        const all = wanted.map(({ chunks, priority }) => layer.filler.fill(chunks, priority))
        const ends = Promise.allSettled(all)
        for (let left = closeAfter; left > 0; left--) await turn()
        await layer.filler.close()
        expect([layer.decoding.size, layer.checking]).toEqual([0, 0])
        for (const end of await ends) {
          if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'aborted' })
        }
        expect(layer.open).toEqual([])
        expect([layer.budget.bytes('demand'), layer.budget.bytes('prefetch')]).toEqual([0, 0])
      },
    ),
    { numRuns: runs(50) },
  )
})
