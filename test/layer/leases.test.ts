import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Lease, Leases, type Shared } from '../../src/layer/leases.ts'

const noLog = () => {}

/** Something shared that opens and ends when it is told to. */
class Door implements Shared {
  readonly #opening = Promise.withResolvers<void>()
  readonly #ending = Promise.withResolvers<void>()
  readonly ready = this.#opening.promise
  state: 'opening' | 'open' | 'ending' | 'ended' | 'failed' = 'opening'
  joined = 0

  open(): void {
    this.state = 'open'
    this.#opening.resolve()
  }

  fail(): void {
    this.state = 'failed'
    this.#opening.reject(new Error('it does not open'))
  }

  async end(): Promise<void> {
    expect(this.state).toBe('open')
    this.state = 'ending'
    await this.#ending.promise
    this.state = 'ended'
  }

  letEnd(): void {
    this.#ending.resolve()
  }
}

function fixture(idleMax: number) {
  const doors: Door[] = []
  const leases = new Leases<string, Door>(idleMax, noLog)
  const take = (key: string) =>
    leases.take(
      key,
      () => {
        const door = new Door()
        doors.push(door)
        return door
      },
      (door) => {
        door.joined++
      },
    )
  /** One that opens at once and ends at once. */
  const taken = async (key: string) => {
    const before = doors.length
    const taking = take(key)
    await Promise.resolve()
    for (const each of doors.slice(before)) {
      each.open()
      each.letEnd()
    }
    return await taking
  }
  return { leases, doors, take, taken }
}

test('whoever takes it while it is open shares it; it ends with the last, once', async () => {
  const { leases, doors, take } = fixture(0)
  const [one, two] = [take('a'), take('a')]
  doors[0]?.open()
  const [first, second] = await Promise.all([one, two])
  expect(doors).toHaveLength(1)
  expect(second.of).toBe(first.of)
  expect(first.of.joined).toBe(2)
  await first.close()
  await first.close()
  expect(doors[0]?.state).toBe('open')
  const third = second.again()
  await second[Symbol.asyncDispose]()
  expect(doors[0]?.state).toBe('open')
  expect(() => second.again()).toThrow('held again')
  const closing = third.close()
  doors[0]?.letEnd()
  await closing
  expect(doors[0]?.state).toBe('ended')
  expect(leases.size).toBe(0)
})

test('whoever takes it while it ends waits for that, and has it opened anew', async () => {
  const { doors, take } = fixture(0)
  const first = take('a')
  doors[0]?.open()
  const closing = (await first).close()
  const [one, two] = [take('a'), take('a')]
  expect(doors).toHaveLength(1)
  doors[0]?.letEnd()
  await closing
  await Promise.resolve()
  expect(doors.map(({ state }) => state)).toEqual(['ended', 'opening'])
  doors[1]?.open()
  expect((await one).of).toBe((await two).of)
})

test('what nobody holds stays open within a bound, the one that was used the longest ago goes first', async () => {
  const { leases, doors, taken } = fixture(2)
  for (const key of ['a', 'b', 'c']) await (await taken(key)).close()
  expect(doors.map(({ state }) => state)).toEqual(['ended', 'open', 'open'])
  await (await taken('b')).close()
  await (await taken('d')).close()
  expect(doors.map(({ state }) => state)).toEqual(['ended', 'open', 'ended', 'open'])
  const held = await Promise.all(['e', 'f', 'g', 'b'].map(taken))
  expect(leases.size).toBe(5) // those that are held do not count
  await Promise.all(held.map((each) => each.close()))
  expect(leases.size).toBe(2)
})

test('what fails to open fails whoever waits, and is opened anew by the next', async () => {
  const { leases, doors, take, taken } = fixture(1)
  const waiting = [take('a'), take('a')].map((each) => expect(each).rejects.toThrow('does not open'))
  doors[0]?.fail()
  await Promise.all(waiting)
  expect(leases.size).toBe(0)
  await taken('a')
  expect(doors.map(({ state }) => state)).toEqual(['failed', 'open'])
})

test('closing ends all, held or not, also what is being opened', async () => {
  const { leases, doors, take, taken } = fixture(1)
  await (await taken('idle')).close()
  const held = await taken('held')
  const opening = take('opening')
  const failing = expect(take('failing')).rejects.toThrow('does not open')
  const closing = leases.close()
  doors[2]?.open()
  doors[2]?.letEnd()
  doors[3]?.fail()
  await closing
  await failing
  expect(doors.map(({ state }) => state)).toEqual(['ended', 'ended', 'ended', 'failed'])
  await (await opening).close()
  await held.close()
  expect(leases.size).toBe(0)
})

test('what fails to end is logged, and can be opened again', async () => {
  const lines: string[] = []
  const leases = new Leases<string, Shared>(0, (line) => lines.push(line))
  const broken: Shared = { ready: Promise.resolve(), end: () => Promise.reject(new Error('the disk is gone')) }
  await (await leases.take('a', () => broken)).close()
  expect(lines).toEqual([expect.stringContaining('the disk is gone')])
  expect(leases.size).toBe(0)
})

test('in whatever order it is taken, opened, closed and ended: one is open at a time, none that is held ends, and few stay', async () => {
  const IDLE = 2
  const step = fc.record({ act: fc.constantFrom('take', 'again', 'close', 'open', 'end', 'fail'), which: fc.nat(7) })
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const own = new Leases<string, Door>(IDLE, noLog)
      const held: { key: string; lease: Lease<Door> }[] = []
      const live = new Map<string, Door[]>()
      const pending = new Set<Promise<unknown>>()
      const run = (work: Promise<unknown>) => {
        const running: Promise<unknown> = work.catch(() => {}).finally(() => pending.delete(running))
        pending.add(running)
      }
      const all = () => [...live.values()].flat()
      for (const { act, which } of steps) {
        const key = 'abc'[which % 3] as string
        const some = held[which % Math.max(held.length, 1)]
        if (act === 'take') {
          const begin = () => {
            const door = new Door()
            const doors = live.get(key) ?? []
            expect(doors.filter(({ state }) => !['ended', 'failed'].includes(state))).toEqual([])
            live.set(key, [...doors, door])
            return door
          }
          run(own.take(key, begin).then((lease) => held.push({ key, lease })))
        } else if (act === 'again' && some) held.push({ key: some.key, lease: some.lease.again() })
        else if (act === 'close' && some) {
          held.splice(held.indexOf(some), 1)
          run(some.lease.close())
        } else if (act === 'end') for (const each of all()) each.letEnd()
        else if (act === 'open' || act === 'fail') {
          const opening = all().find(({ state }) => state === 'opening')
          if (act === 'open') opening?.open()
          else opening?.fail()
        }
        for (let i = 0; i < which; i++) await Promise.resolve()
        for (const { lease } of held) expect(lease.of.state).toBe('open')
      }
      while (pending.size > 0 || held.length > 0) {
        for (const each of all()) {
          if (each.state === 'opening') each.open()
          each.letEnd()
        }
        for (const { lease } of held.splice(0)) run(lease.close())
        await new Promise((next) => setImmediate(next))
      }
      expect(own.size).toBeLessThanOrEqual(IDLE)
      expect(all().filter(({ state }) => state === 'open')).toHaveLength(own.size)
    }),
    { numRuns: 300 },
  )
})
