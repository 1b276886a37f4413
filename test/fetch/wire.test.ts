import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { Wire } from '../../src/fetch/wire.ts'

const KIB = 1024
const MIB = KIB * KIB
const never = new AbortController().signal

/** A way whose clock is ours. */
function way(standsAside = true) {
  const clock = { ms: 0 }
  const wire = new Wire(standsAside, () => clock.ms)
  /** Begins reads in the background as long as there is room, and says how many. */
  const beginAll = async (bytes: number) => {
    let begun = 0
    for (; wire.unread < wire.limit; begun++) {
      await wire.place(never)
      wire.begin(bytes, 'background')
    }
    return begun
  }
  return { wire, clock, beginAll }
}

describe('on the way to an origin', () => {
  test('that nothing is known of, one window’s bytes are under way, however long the range is', async () => {
    const { wire, beginAll } = way()
    expect(await beginAll(4 * MIB)).toBe(1)
    expect(wire.unread).toBe(256 * KIB)
  })

  test('of which much is carried in a round trip, more reads are under way, but not twice what it carries', async () => {
    const { wire, clock, beginAll } = way()
    // 12.5 MB/s, 80 ms: 1 MB
    const transfer = wire.begin(10 * MIB, 'demand')
    for (let ms = 1; ms <= 500; ms++) {
      clock.ms = 80 + ms
      transfer.came(ms * 12_500)
    }
    transfer.end()
    expect(wire.limit).toBeGreaterThan(1_000_000)
    expect(wire.limit).toBeLessThan(2_000_000)
    expect(await beginAll(MIB)).toBe(Math.ceil(wire.limit / (256 * KIB)))
  })

  test('that nothing is known of, who waits first is answered before anything is fetched that nobody waits for', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const { wire, clock } = way()
    const first = wire.begin(100, 'demand')
    let begun = false
    void wire.place(never).then(() => {
      begun = true
    })
    clock.ms = 40
    await vi.advanceTimersByTimeAsync(40)
    first.came(100)
    first.end()
    clock.ms = 60
    await vi.advanceTimersByTimeAsync(20)
    expect(begun).toBe(false)
    clock.ms = 91
    await vi.advanceTimersByTimeAsync(31)
    expect(begun).toBe(true)
  })

  test('that is long and wide is full after a few round trips of the background alone, and no fuller after that', async () => {
    const { wire, clock } = way()
    // 12.5 MB/s, 150 ms: 1.9 MB; each read brings a window in a round trip, as long as all together bring no more than the way carries
    const limits: number[] = []
    let waiting = false
    const reads: { came(to: number): void; at: number }[] = []
    const begin = async () => {
      while (wire.unread < wire.limit) {
        await wire.place(never)
        reads.push({ came: wire.begin(64 * MIB, 'background').came, at: 0 })
      }
      if (!waiting) {
        waiting = true
        void wire.place(never).then(({ leave }) => {
          waiting = false
          leave()
        })
      }
    }
    for (let trip = 0; trip < 20; trip++) {
      await begin()
      clock.ms += 150
      const each = Math.min(256 * KIB, (12_500 * 150) / reads.length)
      for (const read of reads) {
        read.at += each
        read.came(read.at)
      }
      await turn()
      limits.push(wire.limit)
    }
    expect(limits[3]).toBeGreaterThan(1_875_000)
    expect(limits.at(-1)).toBeLessThan(2 * 1_875_000)
  })

  test('that held somebody back for a while carries more soon, also if nobody waits just when that is measured', async () => {
    const { wire, clock } = way()
    const answer = wire.begin(MIB, 'demand')
    clock.ms = 50
    answer.came(KIB)
    clock.ms = 110 // a span ends
    answer.came(2 * KIB)
    await wire.place(never)
    const first = wire.begin(256 * KIB, 'background')
    const second = wire.place(never)
    clock.ms = 160
    first.came(256 * KIB)
    await second
    clock.ms = 210 // and the next one
    answer.came(258 * KIB)
    // 512 KiB in 100 ms; a way that held nobody back would be given 1.4 times what it carries in 50
    expect(wire.limit).toBeGreaterThan(700 * KIB)
  })

  test('that held somebody back before a pause is not taken to have done so after it', async () => {
    const { wire, clock } = way()
    const answer = wire.begin(MIB, 'demand')
    clock.ms = 50
    answer.came(KIB)
    clock.ms = 110 // a span ends
    answer.came(2 * KIB)
    await wire.place(never)
    const first = wire.begin(256 * KIB, 'background')
    const second = wire.place(never)
    first.came(256 * KIB)
    await second.then(({ leave }) => leave())
    first.end()
    answer.end()
    clock.ms = 5_000
    const next = wire.begin(MIB, 'demand')
    clock.ms = 5_100
    next.came(512 * KIB)
    // 512 KiB in 100 ms, but 50 ms long
    expect(wire.limit).toBeLessThan(400 * KIB)
  })

  test('a read is no longer than what comes of it in half a second, where that is known', () => {
    const { wire, clock } = way()
    expect(wire.readMaxBytes).toBe(MIB)
    const transfer = wire.begin(MIB, 'demand')
    clock.ms = 50
    transfer.came(KIB)
    expect(wire.readMaxBytes).toBe(2.5 * MIB)
    const near = way()
    near.wire.begin(MIB, 'demand').came(KIB)
    expect(near.wire.readMaxBytes).toBe(Number.POSITIVE_INFINITY)
    const far = way()
    const late = far.wire.begin(MIB, 'demand')
    far.clock.ms = 900
    late.came(KIB)
    expect(far.wire.readMaxBytes).toBe(256 * KIB)
  })

  test('the next read may begin when what is left of the one before is less than its window', async () => {
    const { wire } = way()
    await wire.place(never)
    const first = wire.begin(MIB, 'background')
    let begun = false
    void wire.place(never).then(() => {
      begun = true
    })
    first.came(768 * KIB)
    await turn()
    expect(begun).toBe(false)
    first.came(769 * KIB)
    await turn()
    expect(begun).toBe(true)
  })

  test('a read that was let in and never begins gives its room back', async () => {
    const { wire } = way()
    const place = await wire.place(never)
    expect(wire.unread).toBe(256 * KIB)
    place.leave()
    expect(wire.unread).toBe(0)
  })

  test('what was measured is forgotten after a pause', () => {
    const { wire, clock } = way()
    const transfer = wire.begin(10 * MIB, 'demand')
    for (let ms = 1; ms <= 500; ms++) {
      clock.ms = 80 + ms
      transfer.came(ms * 12_500)
    }
    transfer.end()
    clock.ms += 60_001
    wire.begin(KIB, 'demand')
    expect(wire.limit).toBe(256 * KIB)
  })

  test('answers that stand in a queue make the way no longer, for ten seconds', () => {
    const { wire, clock } = way()
    const answer = (ms: number) => {
      const read = wire.begin(KIB, 'demand')
      clock.ms += ms
      read.came(KIB)
      read.end()
    }
    answer(40)
    for (let i = 0; i < 49; i++) answer(200)
    expect(wire.roundTripMs).toBe(40)
    answer(200)
    expect(wire.roundTripMs).toBe(200)
    answer(60)
    expect(wire.roundTripMs).toBe(60)
  })

  test('whoever waits for room is told when it is over', async () => {
    const { wire } = way()
    await wire.place(never)
    const over = new AbortController()
    const waiting = wire.place(over.signal)
    over.abort(new Error('over'))
    await expect(waiting).rejects.toThrow('over')
  })

  describe('that is short', () => {
    beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }))
    afterEach(() => void vi.useRealTimers())

    /** A demand read that is answered after so long. @returns whether the background has begun, which waits since then */
    const read = (answerMs: number, standsAside = true) => {
      const { wire, clock } = way(standsAside)
      const demand = wire.begin(KIB, 'demand')
      clock.ms = answerMs
      demand.came(KIB)
      demand.end()
      let begun = false
      void wire.place(never).then(() => {
        begun = true
      })
      const pass = async (ms: number) => {
        clock.ms += ms
        await vi.advanceTimersByTimeAsync(ms)
        return begun
      }
      return { wire, pass }
    }

    test.each([0, 3])('the background waits until nobody has read for a second: %s ms', async (answerMs) => {
      const { wire, pass } = read(answerMs)
      expect(await pass(900)).toBe(false)
      const more = wire.begin(KIB, 'prefetch')
      expect(await pass(1500)).toBe(false)
      more.end()
      expect(await pass(900)).toBe(false)
      expect(await pass(1000)).toBe(true)
    })

    test('it waits for no such time on a longer one, and for none when it does not stand aside', async () => {
      expect(await read(10).pass(51)).toBe(true)
      expect(await read(3, false).pass(0)).toBe(true)
    })

    test.each([
      [2 * MIB, false],
      [MIB / 2, true],
    ])('on a longer one it leaves the moment after a prefetch of %s bytes to what starts', async (bytes, isAtOnce) => {
      const { wire, pass } = read(40)
      const both = [wire.begin(bytes / 2, 'prefetch'), wire.begin(bytes / 2, 'prefetch')]
      for (const each of both) each.came(bytes / 2)
      for (const each of both) each.end()
      expect(await pass(200)).toBe(isAtOnce)
      expect(await pass(51)).toBe(true)
    })
  })

  test('what a prefetch finds here already tells nothing of a round trip', async () => {
    const { wire, clock } = way()
    wire.begin(MIB, 'prefetch').came(1)
    const transfer = wire.begin(10 * MIB, 'background')
    for (let ms = 1; ms <= 500; ms++) {
      clock.ms = 80 + ms
      transfer.came(ms * 12_500)
    }
    expect(wire.limit).toBeGreaterThan(1_000_000)
  })
})
