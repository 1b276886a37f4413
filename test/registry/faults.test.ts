// Each fault of a network, over each protocol: what a program that reads gets of it, and that it reads on when the fault is over.
import { describe, expect, test } from 'vitest'
import type { Limits } from '../../src/registry/limits.ts'
import type { Fault } from '../fake/faults.ts'
import { Outage } from '../fake/outage.ts'
import { BYTES, blobs, CHUNK, makeScene, PROTOCOLS, type Protocol } from './scene.ts'

const EIO = 5
const EACCES = 13
const ALL = Object.keys(PROTOCOLS) as Protocol[]

const WHOLE_FORMS = { 'content-encoding': 'gzip', 'content-range': `bytes 0-${CHUNK - 1}/*`, 'content-length': '' }
const SHORT = { stallMs: 250, patienceMs: 500, hedgeMs: 100_000, windowMs: 250, windowBytes: 8_000, attempts: 2 }

/** A fault; what a program's first read gets while it lasts; limits that make it short. */
const FAULTS: readonly [string, Fault, number, Partial<Limits>?][] = [
  ['one wrong byte, once', blobs({ flipAt: 7, nth: 1 }), 0],
  ['a wrong byte in each answer', blobs({ flipAt: 7 }), EIO],
  ['a cut, once', blobs({ cutAfter: 1000, nth: 1 }), 0],
  ['a cut of each answer, before anything came', blobs({ cutAfter: 0 }), EIO],
  ['a cut of each answer, which is taken up where it broke', blobs({ cutAfter: 40_000 }), 0],
  ['an end that comes too early', blobs({ endAfter: 100, until: 2 }), 0],
  ['a reset instead of an answer', blobs({ reset: true, until: 2 }), 0],
  ['resets without an end', blobs({ reset: true }), EIO],
  ['a stall before the first byte, once', blobs({ stallAfter: 0, nth: 1 }), 0, { stallMs: 250 }],
  ['a stall in the middle, once', blobs({ stallAfter: 5000, nth: 1 }), 0, { stallMs: 250 }],
  ['stalls without an end', blobs({ stallAfter: 5000 }), EIO, SHORT],
  ['a trickle', blobs({ bytesPerSecond: 100 }), EIO, SHORT],
  ['a trickle, once', blobs({ bytesPerSecond: 100, nth: 1 }), 0, { stallMs: 400, windowMs: 400 }],
  ['503, twice', blobs({ status: 503, until: 2 }), 0],
  ['503 without an end', blobs({ status: 503 }), EIO],
  ['429 with seconds to wait', blobs({ status: 429, headers: { 'retry-after': '1' }, nth: 1 }), 0],
  [
    '429 with longer to wait than a reader has',
    blobs({ status: 429, headers: { 'retry-after': '1' } }),
    EIO,
    { retryAfterMaxMs: 500 },
  ],
  ['401 without a way in', blobs({ status: 401 }), EACCES],
  ['403', blobs({ status: 403 }), EACCES],
  ['404 of what was there', blobs({ status: 404 }), EIO],
  ['410', blobs({ status: 410 }), EIO],
  ['416', blobs({ status: 416 }), EIO],
  ['the whole blob for a range of it', blobs({ ignoreRange: true }), 0],
  ['another range', blobs({ headers: { 'content-range': `bytes 1-${CHUNK}/${BYTES.length}` } }), EIO],
  [
    'parts of several ranges',
    blobs({ headers: { 'content-type': 'multipart/byteranges; boundary=x', 'content-range': '' } }),
    EIO,
  ],
  ['an encoding that nobody asked for', blobs({ headers: WHOLE_FORMS }), EIO],
  ['a redirect that does not end', blobs({ redirect: 'v1' }), EACCES],
]

describe.each(ALL)('over %s', (protocol) => {
  test.each(FAULTS)('%s', async (_, fault, wanted, limits = {}) => {
    const { start, answering, open } = await makeScene()
    const registry = await start(PROTOCOLS[protocol])
    registry.faults = [fault]
    const { program, registries } = open(await answering(registry), { probeMs: 10, probeMaxMs: 10, ...limits })
    expect(await program.errnoOf(1)).toBe(wanted)
    // nothing is restarted
    registry.faults = []
    await expect.poll(() => registries.outages()).toEqual([])
    expect(await program.errnoOf(1, 2, 30)).toBe(0)
    expect(registry.seen[0]?.protocol).toBe(protocol === 'HTTP/2' ? 'h2' : 'h1')
  })

  const another: readonly [string, Fault, Partial<Limits>?][] = [
    ['wrong bytes', blobs({ flipAt: 7 })],
    ['404', blobs({ status: 404 })],
    ['403', blobs({ status: 403 })],
    ['416', blobs({ status: 416 })],
    ['503', blobs({ status: 503 })],
    ['resets', blobs({ reset: true })],
    ['another range', blobs({ headers: { 'content-range': 'bytes 1-2/3' } })],
    // a busy machine stalls for some tenths of a second, too
    ['stalls', blobs({ stallAfter: 5000 }), { stallMs: 1000, patienceMs: 5000, hedgeMs: 100_000 }],
  ]
  test.each(another)('of a mirror that gives %s the other gives the bytes', async (_, fault, limits = {}) => {
    const { start, answering, open } = await makeScene()
    const [mirror, origin] = [await start(PROTOCOLS[protocol]), await start(PROTOCOLS[protocol])]
    const { program } = open(await answering(mirror, origin), limits)
    expect(await program.errnoOf(0)).toBe(0)
    expect(origin.seen).toEqual([])
    mirror.faults = [fault]
    expect(await program.errnoOf(5, 6)).toBe(0)
    expect(origin.seen.length).toBeGreaterThan(0)
  })

  test('when nobody is there any more reads fail, and go on when one of them is back', async () => {
    const { start, answering, open } = await makeScene()
    const registries = [await start(PROTOCOLS[protocol]), await start(PROTOCOLS[protocol])]
    const ways = await Promise.all(registries.map(({ host }) => Outage.before(Number(host.split(':')[1]))))
    try {
      const { program } = open(await answering(...ways), { probeMs: 10, probeMaxMs: 10, attempts: 2 })
      expect(await program.errnoOf(0)).toBe(0)
      for (const each of ways) await each.refuse()
      expect(await program.errnoOf(9)).toBe(EIO)
      expect(await program.errnoOf(0)).toBe(0) // what is here stays
      await ways[1]?.listenAgain()
      await expect.poll(() => program.errnoOf(9)).toBe(0)
      await ways[1]?.refuse()
      await ways[0]?.listenAgain()
      await expect.poll(() => program.errnoOf(20)).toBe(0)
    } finally {
      for (const each of ways) await each[Symbol.asyncDispose]()
    }
  })
})
