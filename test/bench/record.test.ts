import { homedir, hostname, userInfo } from 'node:os'
import { expect, test } from 'vitest'
import { measure } from '../../bench/measure.ts'
import { type Outcome, record, table } from '../../bench/record.ts'

const subjects = [
  { name: 'us', samples: [{ speed: 3 }, { speed: 5 }, { speed: 4 }] },
  { name: 'them', version: 'them 1.2', samples: [{ speed: 1 }, { speed: 1 }, { speed: 1.00000049 }] },
]
const ratios = [
  { metric: 'speed', of: 'us', over: 'them', atLeast: 5 },
  { metric: 'speed', of: 'them', over: 'us' },
]
const OUTCOME: Outcome = {
  case: { name: 'race', explains: 'who is\n    faster', ratios, prepare: async () => [] },
  rounds: 3,
  link: { roundTripMs: 1, bytesPerSecond: Number.POSITIVE_INFINITY },
  subjects,
  absent: [],
  ratios: ratios.map((each) => measure(each, subjects)),
}

test('a record has ratios, bars, medians, 99th percentiles, raw samples, versions, the link and the machine', () => {
  const kept = JSON.parse(record(OUTCOME) ?? '')
  expect(kept).toMatchObject({
    case: 'race',
    explains: 'who is faster',
    machine: { node: process.version, architecture: process.arch, cpus: expect.any(Number) },
    link: { roundTripMs: 1, bytesPerSecond: null },
    rounds: 3,
    ratios: [
      { metric: 'speed', of: 'us', over: 'them', atLeast: 5, median: 4, least: 3, most: 5, met: false },
      { met: null },
    ],
    subjects: [
      { name: 'us', median: { speed: 4 }, p99: { speed: 5 }, samples: [{ speed: 3 }, { speed: 5 }, { speed: 4 }] },
      { name: 'them', version: 'them 1.2', samples: [{ speed: 1 }, { speed: 1 }, { speed: 1 }] },
    ],
  })
  expect(kept.machine.kernel).toMatch(/^\d+\.\d+/)
})

test('a record names no host, no user and no path', () => {
  const kept = record(OUTCOME) ?? ''
  for (const name of [hostname(), userInfo().username, homedir(), process.cwd()]) expect(kept).not.toContain(`"${name}`)
  expect(kept).not.toMatch(/"\//)
})

test('a run in which somebody was absent leaves no record, and the table says who and why', () => {
  const outcome = { ...OUTCOME, absent: [{ name: 'third', why: 'it is not built' }] }
  expect(record(outcome)).toBeUndefined()
  expect(table(outcome)).toContain('third: not measured: it is not built')
})

test('a table says what is measured, the medians, and whether each bar is met', () => {
  expect(table(OUTCOME).split('\n')).toEqual([
    'race (medians of 3)',
    '  who is faster',
    '           speed',
    '    us      4.00',
    '      p99   5.00',
    '    them    1.00',
    '      p99   1.00',
    '  speed, us : them = 4.00× (3.00 to 5.00), bar 5.00×: MISSED',
    '  speed, them : us = 0.250× (0.200 to 0.333)',
    '',
  ])
})
