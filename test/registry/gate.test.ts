import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { Gate } from '../../src/registry/gate.ts'

/** Enters in the background and notes its name. */
function enter(gate: Gate, priority: 'demand' | 'prefetch', name: string, order: string[]): Promise<() => void> {
  return gate.enter(priority).then((leave) => {
    order.push(name)
    return leave
  })
}

test('no more than the limit are inside', async () => {
  const gate = new Gate(3, 0)
  let inside = 0
  let most = 0
  const visits = Array.from({ length: 50 }, async (_, i) => {
    const leave = await gate.enter(i % 2 ? 'demand' : 'prefetch')
    most = Math.max(most, ++inside)
    await turn()
    inside--
    leave()
    leave() // twice is once
  })
  await Promise.all(visits)
  expect(most).toBe(3)
  expect(gate.idle).toBe(true)
})

test('demand passes prefetch that waits, and finds places that prefetch may not take', async () => {
  const gate = new Gate(3, 1)
  const order: string[] = []
  const first = await enter(gate, 'prefetch', 'p1', order)
  await enter(gate, 'prefetch', 'p2', order)
  const third = enter(gate, 'prefetch', 'p3', order)
  await turn()
  expect(order).toEqual(['p1', 'p2'])
  const demand = await enter(gate, 'demand', 'd1', order)
  const second = enter(gate, 'demand', 'd2', order)
  await turn()
  expect(order).toEqual(['p1', 'p2', 'd1'])
  first()
  await second
  expect(order).toEqual(['p1', 'p2', 'd1', 'd2'])
  demand()
  await turn()
  expect(order).toHaveLength(4)
  ;(await second)()
  await third
  expect(order.at(-1)).toBe('p3')
})

test('who gives up leaves the queue and takes no place', async () => {
  const gate = new Gate(1, 0)
  const leave = await gate.enter('demand')
  const stop = new AbortController()
  const waiting = gate.enter('demand', stop.signal)
  stop.abort()
  await expect(waiting).rejects.toMatchObject({ code: 'aborted' })
  await expect(gate.enter('demand', stop.signal)).rejects.toMatchObject({ code: 'aborted' })
  const late = gate.enter('demand', AbortSignal.abort(Failure.timeout('too late')))
  await expect(late).rejects.toMatchObject({ code: 'timeout' })
  leave()
  expect(gate.idle).toBe(true)
  ;(await gate.enter('prefetch'))()
})

test('a gate with one place still lets prefetch through', async () => {
  const gate = new Gate(1, 2)
  ;(await gate.enter('prefetch'))()
  expect(gate.idle).toBe(true)
})

/** Enters as often as it may, and leaves again. */
async function fits(gate: Gate): Promise<number> {
  const left: (() => void)[] = []
  const stop = new AbortController()
  for (let i = 0; i < 100; i++) {
    gate.enter('demand', stop.signal).then(
      (leave) => left.push(leave),
      () => {},
    )
  }
  await turn()
  stop.abort()
  await turn()
  for (const leave of left) leave()
  return left.length
}

test('a host that has too much to do gets half as many, once for all that were under way, and one more for each round it answers', async () => {
  const gate = new Gate(48, 2)
  const leave = await Promise.all(Array.from({ length: 32 }, () => gate.enter('demand')))
  const sentAt = performance.now()
  await new Promise((done) => setTimeout(done, 5))
  for (let i = 0; i < 20; i++) gate.shed(sentAt)
  for (const each of leave) each()
  expect(await fits(gate)).toBe(16)
  for (let i = 0; i < 17; i++) gate.bore()
  expect(await fits(gate)).toBe(17)
  for (let i = 0; i < 10; i++) gate.shed(performance.now())
  expect(await fits(gate)).toBe(1)
  for (let i = 0; i < 2000; i++) gate.bore()
  expect(await fits(gate)).toBe(48)
})

test('what a protocol carries is no more than a host bears', async () => {
  const gate = new Gate(6, 2)
  gate.limit = 48
  expect(await fits(gate)).toBe(48)
  const leave = await Promise.all(Array.from({ length: 8 }, () => gate.enter('demand')))
  gate.shed(performance.now())
  for (const each of leave) each()
  gate.limit = 6
  expect(await fits(gate)).toBe(4)
  gate.limit = 48
  expect(await fits(gate)).toBe(4)
})

test('while a host rests, nobody asks it but who is waited for', async () => {
  const gate = new Gate(10, 2)
  gate.shed(performance.now(), 100)
  const order: string[] = []
  const prefetch = enter(gate, 'prefetch', 'p', order)
  const background = gate.rested().then(() => order.push('b'))
  ;(await enter(gate, 'demand', 'd', order))()
  expect(order).toEqual(['d'])
  ;(await prefetch)()
  await background
  expect(order).toEqual(['d', 'p', 'b'])
})
