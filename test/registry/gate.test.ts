import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { Gate } from '../../src/registry/connections.ts'

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
