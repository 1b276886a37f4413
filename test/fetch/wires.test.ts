import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Throttle } from '../../src/fetch/throttle.ts'
import { Wires } from '../../src/fetch/wire.ts'

const unlimited = Number.POSITIVE_INFINITY

test('the background goes on while an answer is waited for, stops while it comes, and goes on when it has', async () => {
  const wires = new Wires({ standsAside: true, maxBytesPerSecond: unlimited })
  const demand = wires.begin('registry.example.com', 100, 'demand')
  expect(wires.hold(10, () => {})).toBeUndefined()
  demand.came(50)
  let goes = false
  void wires
    .hold(10, () => {})
    ?.then(() => {
      goes = true
    })
  await turn()
  expect(goes).toBe(false)
  demand.end()
  await turn()
  expect(goes).toBe(true)
})

test('it does not stop for itself, nor, where it is to be as fast as a pull, for anybody', () => {
  const background = new Wires({ standsAside: true, maxBytesPerSecond: unlimited })
  background.begin('registry.example.com', 100, 'background').came(50)
  expect(background.hold(10, () => {})).toBeUndefined()
  const full = new Wires({ standsAside: false, maxBytesPerSecond: unlimited })
  full.begin('registry.example.com', 100, 'demand').came(50)
  expect(full.hold(10, () => {})).toBeUndefined()
})

test('what somebody begins to wait for comes at once', async () => {
  const wires = new Wires({ standsAside: false, maxBytesPerSecond: 1 })
  let hurry = () => {}
  const held = wires.hold(1_000_000, (call) => {
    hurry = call
  })
  hurry()
  await held
})

test('no more comes in a second than may', () => {
  const clock = { ms: 0 }
  const throttle = new Throttle(1000, () => clock.ms)
  expect(throttle.take(500)).toBe(500)
  expect(throttle.take(500)).toBe(1000)
  clock.ms = 5000 // what was not used then is not saved up
  expect(throttle.take(100)).toBe(100)
})

test('nothing begins in the background while prefetch is under way, though nothing of it comes yet', async () => {
  const signal = AbortSignal.timeout(10_000)
  const places = async ({ standsAside }: { standsAside: boolean }) => {
    const wires = new Wires({ standsAside, maxBytesPerSecond: unlimited })
    const prefetch = wires.begin('registry.example.com', 100, 'prefetch')
    let begins = false
    void wires
      .of('registry.example.com')
      .place(signal)
      .then(() => {
        begins = true
      })
    await turn()
    const before = begins
    prefetch.end()
    await turn()
    return [before, begins]
  }
  expect(await places({ standsAside: true })).toEqual([false, true])
  expect(await places({ standsAside: false })).toEqual([true, true])
})
