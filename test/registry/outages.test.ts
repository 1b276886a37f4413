import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { Counters } from '../../src/registry/client.ts'
import { LIMITS } from '../../src/registry/limits.ts'
import { type Endurance, Outages } from '../../src/registry/outages.ts'
import { passing, unanswered } from '../../src/registry/retry.ts'

const away = () => passing(unanswered(Failure.unavailable('nobody there')))
const troubled = () => passing(Failure.unavailable('status 503'))

function open(limits: Partial<typeof LIMITS> = {}) {
  const counters = { retries: 0, retriesUnanswered: 0, outages: 0, failedAtOnce: 0 } as Counters
  const lines: string[] = []
  const quick = { pauseMs: 1, pauseMaxMs: 5, attempts: 2, bearMs: 0, probeMs: 20, probeMaxMs: 20 }
  const all = { ...LIMITS, ...quick, ...limits }
  const outages = new Outages({ host: 'r.example', limits: all, counters, log: (line) => lines.push(line) })
  let gives = { path: false, host: false }
  let probes = 0
  let came = 0
  const endurance = (path: string): Endurance => ({
    path,
    patienceMs: all.patienceMs,
    bearMs: all.bearMs,
    signal: undefined,
    came: () => came,
    probe: async () => {
      probes++
      return gives
    },
  })
  return {
    counters,
    lines,
    outages,
    read: <T>(path: string, attempt: (signal: AbortSignal) => Promise<T>) => outages.bear(endurance(path), attempt),
    give: (what: typeof gives) => {
      gives = what
    },
    bring: (bytes: number) => {
      came += bytes
    },
    probes: () => probes,
  }
}

const fails = (failure: () => Failure) => async (): Promise<never> => {
  throw failure()
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await pause(5)
}

test('a host that nobody reaches fails whoever waits once, then everybody at once, until a probe finds it back', async () => {
  const { read, counters, lines, give, probes, outages } = open()
  expect(outages.now()).toEqual([])
  await expect(read('a', fails(away))).rejects.toMatchObject({ message: 'nobody there' })
  let asked = 0
  const ask = async () => ++asked
  await expect(read('a', ask)).rejects.toMatchObject({ message: 'nobody there' })
  await expect(read('b', ask)).rejects.toMatchObject({ code: 'unavailable' })
  expect([asked, counters.outages, counters.failedAtOnce]).toEqual([0, 1, 2])
  expect(lines).toEqual(['r.example: reads fail at once until it gives again: nobody there'])
  expect(outages.now()).toEqual(['r.example: nobody there'])
  const before = probes()
  await until(() => probes() > before + 1)
  await expect(read('b', ask)).rejects.toMatchObject({ code: 'unavailable' })
  give({ path: false, host: true })
  await until(() => lines.length > 1)
  expect(lines[1]).toBe('r.example: is read again')
  expect(outages.now()).toEqual([])
  expect(await read('b', ask)).toBe(1)
})

test('a path that fails while others are read well fails alone', async () => {
  const { read, counters, give, lines } = open()
  await expect(read('a', fails(troubled))).rejects.toMatchObject({ message: 'status 503' })
  let asked = 0
  await expect(read('a', async () => ++asked)).rejects.toMatchObject({ message: 'status 503' })
  expect(await read('b', async () => ++asked)).toBe(1)
  expect(counters).toMatchObject({ outages: 1, failedAtOnce: 1 })
  give({ path: true, host: true })
  await until(() => lines.length > 1)
  expect(await read('a', async () => ++asked)).toBe(2)
})

test('what breaks for one is no outage of a host that gives to others meanwhile', async () => {
  const { read, lines } = open()
  const whileOthersRead = async () => {
    await pause(20)
    await read('b', async () => 'here')
    throw away()
  }
  await expect(read('a', whileOthersRead)).rejects.toMatchObject({ message: 'nobody there' })
  expect(lines).toEqual(['r.example: a: reads fail at once until it gives again: nobody there'])
  expect(await read('b', async () => 'here')).toBe('here')
})

test('a refusal is borne as long as it must be, and healed within that time', async () => {
  const { read, counters } = open({ bearMs: 250, attempts: 2 })
  const began = performance.now()
  const late = async () => {
    if (performance.now() - began < 150) throw away()
    return 'here'
  }
  expect(await read('a', late)).toBe('here')
  expect(counters).toMatchObject({ outages: 0 })
  expect(counters.retries).toBeGreaterThan(2)
})

test('when a host is given up, whoever came later bears it as long as he may, and is served when it comes back', async () => {
  const { read, lines, give } = open({ bearMs: 300 })
  const first = expect(read('a', fails(away))).rejects.toMatchObject({ message: 'nobody there' })
  await pause(200)
  let back = false
  const second = read('b', async () => {
    if (!back) throw away()
    return 'here'
  })
  await first
  expect(lines).toHaveLength(1)
  back = true
  give({ path: true, host: true })
  expect(await second).toBe('here')
})

test('silence ends at the reader’s patience, whatever an attempt would wait for', async () => {
  const { read, counters, lines } = open({ patienceMs: 200, bearMs: 0 })
  const silent = (signal: AbortSignal) =>
    new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))
  const both = await Promise.allSettled([read('a', silent), read('b', silent)])
  for (const each of both) expect(each).toMatchObject({ status: 'rejected', reason: { code: 'timeout' } })
  expect(counters.outages).toBe(1)
  expect(lines[0]).toMatch(/r\.example: reads fail at once .* has given nothing for 0\.\d s: it accepts requests/)
})

test('silence towards one read is none while bytes flow to another', async () => {
  const { read, outages } = open({ patienceMs: 150, windowBytes: 100 })
  const flow = setInterval(() => outages.pulse.came(100), 10)
  const slow = read('a', async () => {
    await pause(500)
    return 'here'
  })
  expect(await slow).toBe('here')
  clearInterval(flow)
})

test('a transfer that brings much each time may break as often as it likes; one that brings little may not', async () => {
  const { read, bring, counters } = open({ attempts: 2, windowBytes: 1000 })
  let tries = 0
  const breaks = async () => {
    bring(1000)
    if (++tries < 10) throw away()
    return 'all of it'
  }
  expect(await read('a', breaks)).toBe('all of it')
  expect(counters).toMatchObject({ retries: 9, outages: 0 })
  const trickles = async () => {
    bring(1)
    throw away()
  }
  await expect(read('a', trickles)).rejects.toMatchObject({ message: 'nobody there' })
  expect(counters).toMatchObject({ retries: 10, outages: 1 })
})

test('a failure for good is no outage', async () => {
  const { read, counters } = open()
  const missing = () => Failure.missing('no such blob')
  await expect(read('a', fails(missing))).rejects.toMatchObject({ code: 'missing' })
  expect(await read('a', async () => 1)).toBe(1)
  expect(counters.outages).toBe(0)
})

test('whoever gives up himself declares nothing', async () => {
  const { outages, counters } = open({ bearMs: 10_000 })
  const stop = new AbortController()
  const endurance: Endurance = {
    path: 'a',
    patienceMs: 10_000,
    bearMs: 10_000,
    signal: stop.signal,
    came: () => 0,
    probe: async () => ({ path: true, host: true }),
  }
  const reading = outages.bear(endurance, fails(away))
  setTimeout(() => stop.abort(), 30)
  await expect(reading).rejects.toMatchObject({ code: 'aborted' })
  expect(counters.outages).toBe(0)
  outages.close()
})
