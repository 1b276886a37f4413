import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { ByteLimit, Limit, LimitEach, mapLimited, onceEach } from '../src/limit.ts'

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

test('of many pieces of work a few are under way, and what becomes of them is in their order', async () => {
  const ends: (() => void)[] = []
  const all = mapLimited(['a', 'b', 'c', 'd'], 2, async (each) => {
    await new Promise<void>((end) => ends.push(end))
    return each.toUpperCase()
  })
  expect(ends).toHaveLength(2)
  ends[1]?.()
  await turn()
  expect(ends).toHaveLength(3)
  ends[2]?.()
  await turn()
  for (const end of ends) end()
  expect(await all).toEqual(['A', 'B', 'C', 'D'])
  expect(await mapLimited([], 2, async () => 1)).toEqual([])
})

test('no more is begun once a piece of work has failed', async () => {
  const begun: number[] = []
  const all = mapLimited([0, 1, 2, 3, 4], 2, async (each) => {
    begun.push(each)
    await turn()
    if (each === 1) throw new Error('no')
  })
  await expect(all).rejects.toThrow('no')
  await turn()
  expect(begun).toEqual([0, 1, 2])
})

/** Who was granted bytes, in order, and what gives them back. */
function granted(limit: ByteLimit) {
  const order: string[] = []
  const back = new Map<string, () => void>()
  const want = (name: string, bytes: number, rank: number, signal = never) => {
    const taking = limit.take(bytes, rank, signal).then((giveBack) => {
      order.push(name)
      back.set(name, giveBack)
    })
    taking.catch(() => {}) // who wants it looks at it
    return taking
  }
  return { order, want, giveBack: (name: string) => back.get(name)?.() }
}

test('the first rank fills all, later ones begin only while less than their share is taken, and wait behind it', async () => {
  const limit = new ByteLimit([100, 50, 20])
  const { order, want, giveBack } = granted(limit)
  await Promise.all([want('background', 20, 2), want('prefetch', 30, 1), want('demand', 50, 0)])
  expect(limit.taken).toBe(100)
  void want('background again', 1, 2)
  void want('prefetch again', 1, 1)
  void want('demand again', 30, 0)
  await turn()
  giveBack('background')
  await turn()
  expect(order.length).toBe(3) // 20 are free, and the first rank wants 30: nobody overtakes it
  giveBack('prefetch')
  await turn()
  expect(order.slice(3)).toEqual(['demand again'])
  giveBack('demand')
  await turn()
  expect(order.slice(4)).toEqual(['prefetch again']) // 31 of 20
  giveBack('demand again')
  await turn()
  expect(order.slice(5)).toEqual(['background again'])
})

test('what may be wanted later makes room for the first rank, and for no other', async () => {
  const shelf = [30, 30]
  const limit: ByteLimit = new ByteLimit([100, 90], () => {
    const bytes = shelf.pop()
    if (bytes !== undefined) limit.count(-bytes)
    return bytes !== undefined
  })
  const { order, want } = granted(limit)
  limit.count(60)
  await want('first', 10, 0)
  void want('later', 30, 1)
  await turn()
  expect([order, shelf]).toEqual([['first'], [30, 30]])
  await want('demand', 50, 0)
  expect([shelf, limit.taken]).toEqual([[30], 90])
})

test('what is counted keeps nobody out for ever, and what is larger than a share has it for itself', async () => {
  const limit = new ByteLimit([100, 50])
  limit.count(500)
  const { order, want, giveBack } = granted(limit)
  await want('one', 400, 1)
  expect(limit.taken).toBe(550)
  void want('two', 1, 0)
  await turn()
  expect(order).toEqual(['one'])
  giveBack('one')
  giveBack('one')
  await turn()
  expect([order, limit.taken]).toEqual([['one', 'two'], 501])
})

test('who gives up lets those behind go, and what nobody waits for is taken at once or not at all', async () => {
  const limit = new ByteLimit([100, 100])
  const { order, want } = granted(limit)
  await want('first', 60, 0)
  const stop = new AbortController()
  const large = want('large', 90, 0, stop.signal)
  void want('small', 30, 1)
  expect(limit.tryTake(1, 0)).toBe(undefined) // somebody waits
  stop.abort(new Error('enough'))
  await expect(large).rejects.toThrow('enough')
  await turn()
  expect(order).toEqual(['first', 'small'])
  expect(limit.tryTake(11, 1)).toBe(undefined)
  limit.tryTake(10, 1)?.()
  expect(limit.taken).toBe(90)
  await expect(limit.take(1, 0, stop.signal)).rejects.toThrow('enough')
})

test('what is asked once is asked again for what failed, and when there is too much of it', async () => {
  const asked: string[] = []
  const once = onceEach(async (key) => {
    asked.push(key)
    if (key === 'bad' && asked.length === 1) throw new Error('bad')
    return key
  }, 2)
  await expect(once('bad')).rejects.toThrow('bad')
  expect(await Promise.all([once('bad'), once('bad'), once('good')])).toEqual(['bad', 'bad', 'good'])
  expect(asked).toEqual(['bad', 'bad', 'good'])
  await once('third')
  await once('good')
  expect(asked).toEqual(['bad', 'bad', 'good', 'third', 'good'])
})
