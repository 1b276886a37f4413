import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { Settled } from '../../src/fetch/flights.ts'
import { Wires } from '../../src/fetch/wire.ts'
import { digestOf } from '../../src/image/digest.ts'
import { Background, type BackgroundLayer } from '../../src/layer/background.ts'
import { READY_MISSING, READY_VERIFIED } from '../../src/tree/ready.ts'
import { row, tableOf } from '../fetch/layer.ts'

const KIB = 1024
const ORIGIN = 'registry.example.com'

interface Fill {
  layer: string
  chunks: number[]
  end(error?: unknown): void
}

/** Layers that are filled when the test says so. */
function rig(hasRoom: () => boolean = () => true, pause = async (_ms: number, _signal: AbortSignal) => {}) {
  const fills: Fill[] = []
  const pauses: number[] = []
  const complete: string[] = []
  const logged: string[] = []
  const background = new Background({
    wires: new Wires(),
    hasRoom,
    pause: async (ms, signal) => {
      pauses.push(ms)
      await pause(ms, signal)
    },
    log: (message) => logged.push(message),
  })
  onTestFinished(() => background.close())
  const add = (
    name: string,
    count: number,
    { image = 'an image', origin = ORIGIN, size = 512 * KIB, reverify = async (): Promise<void> => {} } = {},
  ) => {
    const table = tableOf(row(count, size))
    const states = new Uint8Array(count).fill(READY_MISSING)
    const missed = new Set<(chunk: number) => void>()
    const held = { now: 0 }
    const lease = () => {
      held.now++
      return { ...layer, close: async () => void held.now-- }
    }
    const layer = {
      tree: digestOf(new TextEncoder().encode(name)),
      chunks: table,
      slots: { states: async () => states, statesOf: (some: readonly number[]) => some.map((each) => states[each]) },
      filler: {
        watch(told: (chunk: number) => void) {
          missed.add(told)
          return () => missed.delete(told)
        },
        fillEach(wanted: Iterable<number>, priority: string, settled: Settled, signal: AbortSignal) {
          expect(priority).toBe('background')
          const chunks = [...wanted]
          const end = (error?: unknown) => {
            for (const chunk of chunks.splice(0)) {
              if (error === undefined) states[chunk] = READY_VERIFIED
              settled(chunk, error)
            }
          }
          signal.addEventListener('abort', () => end(Failure.aborted('over')))
          fills.push({ layer: name, chunks: [...chunks], end })
        },
      },
      reverify,
      again: lease,
      close: async () => {},
    } as unknown as BackgroundLayer['layer']
    const letGo = background.add({ layer, image, origin, complete: () => void complete.push(name) })
    const miss = (chunk: number) => {
      for (const told of missed) told(chunk)
    }
    return { miss, states, held, letGo }
  }
  const asked = () => fills.map(({ layer, chunks }) => `${layer} ${chunks.join(',')}`)
  return { background, add, fills, pauses, complete, logged, asked }
}

async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await turn()
}

describe('the rest of an image', () => {
  test('comes when a program misses something of it: first of that layer, from there on, then of the others in their order', async () => {
    const { add, fills, asked, complete, background } = rig()
    add('low', 2)
    add('middle', 2)
    const top = add('top', 4)
    await settle()
    expect(asked()).toEqual([])
    top.miss(2)
    await settle()
    expect(background.progress).toMatchObject({ layers: 3, left: 8 * 512 * KIB })
    for (let i = 0; i < fills.length; i++) {
      fills[i]?.end()
      await settle()
    }
    expect(asked()).toEqual(['top 2,3', 'top 0,1', 'low 0,1', 'middle 0,1'])
    expect(complete).toEqual(['top', 'low', 'middle'])
    expect(background.progress).toEqual({ layers: 0, left: 0, came: 8 * 512 * KIB })
    expect(top.held.now).toBe(0)
  })

  test('goes on with the layer that a program reads from now', async () => {
    const { add, fills, asked } = rig()
    const low = add('low', 6)
    const top = add('top', 6)
    low.miss(0)
    await settle()
    top.miss(4)
    fills[0]?.end()
    await settle()
    expect(asked()).toEqual(['low 0,1', 'top 4,5'])
  })

  test('of another image does not come, nor what was never missed', async () => {
    const { add, asked } = rig()
    const one = add('one', 2, { image: 'one' })
    add('other', 2, { image: 'other' })
    one.miss(0)
    await settle()
    expect(asked()).toEqual(['one 0,1'])
  })

  test('that is fetched from another registry waits for none', async () => {
    const { add, asked } = rig()
    add('here', 2).miss(0)
    add('there', 2, { image: 'there', origin: 'other.example.com' }).miss(0)
    await settle()
    expect(asked()).toEqual(['here 0,1', 'there 0,1'])
  })

  test('that fails is tried again after pauses that grow, and left alone after a while, until somebody misses something', async () => {
    const { add, fills, pauses, complete } = rig()
    const layer = add('broken', 2)
    layer.miss(0)
    for (let i = 0; i < 8; i++) {
      await settle()
      expect(fills).toHaveLength(i + 1)
      fills[i]?.end(Failure.unavailable('no registry'))
    }
    await settle()
    expect(fills).toHaveLength(8)
    expect(pauses).toEqual([5000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 600_000])
    expect(layer.held.now).toBe(0)
    layer.miss(0)
    await settle()
    fills[8]?.end()
    await settle()
    expect(complete).toEqual(['broken'])
  })

  test('is not fetched where something would have to go for it', async () => {
    let tries = 0
    const { add, asked, complete, fills } = rig(() => ++tries > 3)
    add('large', 2).miss(0)
    await settle()
    expect(asked()).toEqual(['large 0,1'])
    expect(tries).toBe(4)
    fills[0]?.end()
    await settle()
    expect(complete).toEqual(['large'])
  })

  test('ends when nobody shows the layer any more, and lets go of it', async () => {
    const { add, asked, complete } = rig()
    const layer = add('gone', 8)
    layer.miss(0)
    await settle()
    expect(layer.held.now).toBe(1)
    layer.letGo()
    await settle()
    expect(layer.held.now).toBe(0)
    expect(asked()).toEqual(['gone 0,1'])
    expect(complete).toEqual([])
  })

  test('is let go of while other layers are fetched, and while a registry that failed is left alone', async () => {
    const { add, fills, asked } = rig(undefined, (_, signal) => once(signal, 'abort').then(() => {}))
    const long = add('long', 8, { image: 'long' })
    const gone = add('gone', 2)
    long.miss(0)
    await settle()
    gone.miss(0)
    await settle()
    gone.letGo()
    fills[0]?.end()
    await settle()
    expect(gone.held.now).toBe(0)
    expect(asked()).toEqual(['long 0,1', 'long 2,3'])
    fills[1]?.end(Failure.unavailable('no registry'))
    await settle()
    long.letGo()
    await settle()
    expect(long.held.now).toBe(0)
  })

  test('is over once, also where a program misses something while it is looked whether all is here', async () => {
    const { add, complete, fills } = rig()
    const looking = Promise.withResolvers<void>()
    const layer = add('looked at', 2, { reverify: () => looking.promise })
    layer.miss(0)
    await settle()
    fills[0]?.end()
    await settle()
    layer.miss(1)
    looking.resolve()
    await settle()
    expect(complete).toEqual(['looked at'])
    expect(layer.held.now).toBe(0)
  })

  test('ends without waiting until it is looked whether all is here', async () => {
    const { add, background, complete, fills } = rig()
    const never = new Promise<void>(() => {})
    const gone = add('gone', 2, { reverify: () => never })
    const stopped = add('stopped', 2, { image: 'another', reverify: () => never })
    gone.miss(0)
    await settle()
    fills[0]?.end()
    await settle()
    gone.letGo()
    await settle()
    expect(gone.held.now).toBe(0)
    stopped.miss(0)
    await settle()
    fills[1]?.end()
    await settle()
    expect(stopped.held.now).toBe(1)
    await background.close()
    expect(stopped.held.now).toBe(0)
    expect(complete).toEqual([])
  })

  test('ends with the agent', async () => {
    const { add, background } = rig()
    const layer = add('stopped', 8)
    layer.miss(0)
    await settle()
    await background.close()
    expect(layer.held.now).toBe(0)
    layer.miss(1)
    await settle()
    expect(layer.held.now).toBe(0)
  })
})
