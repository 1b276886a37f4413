import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Limit, LimitEach } from '../src/limit.ts'

const never = new AbortController().signal

test('no more than so many run at once, first come, first served', async () => {
  const turns = new Limit(2)
  const log: string[] = []
  const ends = new Map<string, () => void>()
  const start = (name: string) =>
    turns.take(async () => {
      log.push(name)
      await new Promise<void>((end) => ends.set(name, end))
      return name
    }, never)
  const all = ['a', 'b', 'c', 'd'].map(start)
  await turn()
  expect(log).toEqual(['a', 'b'])
  ends.get('b')?.()
  await turn()
  expect(log).toEqual(['a', 'b', 'c'])
  ends.get('a')?.()
  ends.get('c')?.()
  await turn()
  ends.get('d')?.()
  expect(await Promise.all(all)).toEqual(['a', 'b', 'c', 'd'])
})

test('work that fails gives its turn back', async () => {
  const turns = new Limit(1)
  const broken = new Error('broken')
  await expect(turns.take(() => Promise.reject(broken), never)).rejects.toBe(broken)
  expect(await turns.take(async () => 'next', never)).toBe('next')
})

test('who gives up while waiting takes no turn', async () => {
  const turns = new Limit(1)
  const { promise, resolve } = Promise.withResolvers<void>()
  const first = turns.take(() => promise, never)
  const stop = new AbortController()
  let ran = false
  const second = turns.take(async () => {
    ran = true
  }, stop.signal)
  const third = turns.take(async () => 'third', never)
  stop.abort(new Error('enough'))
  await expect(second).rejects.toMatchObject({ code: 'aborted', why: 'enough' })
  resolve()
  await first
  expect(await third).toBe('third')
  expect(ran).toBe(false)
  await expect(turns.take(async () => 'x', stop.signal)).rejects.toMatchObject({ code: 'aborted' })
})

test('who has a key of their own waits for nobody else; those of one key do, whatever has ended meanwhile', async () => {
  const turns = new LimitEach<string>(1)
  const running: string[] = []
  const start = (key: string, name: string) => {
    const end = Promise.withResolvers<void>()
    const work = async () => {
      running.push(name)
      await end.promise
    }
    return { end: end.resolve, ended: turns.take(key, work, never) }
  }
  const first = start('a', 'first of a')
  const second = start('a', 'second of a')
  const other = start('b', 'of b')
  await turn()
  expect(running).toEqual(['first of a', 'of b'])
  first.end()
  await first.ended
  const third = start('a', 'third of a')
  await turn()
  expect(running).toEqual(['first of a', 'of b', 'second of a'])
  for (const { end } of [second, other, third]) end()
  await Promise.all([second, other, third].map(({ ended }) => ended))
  await expect(turns.take('a', () => Promise.reject(new Error('broken')), never)).rejects.toThrow('broken')
  expect(await turns.take('a', async () => 'next', never)).toBe('next')
})
