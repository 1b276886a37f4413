import { expect, test } from 'vitest'
import { parseFlags, parseLink } from '../../bench/flags.ts'
import type { Failure } from '../../src/errors.ts'

const KNOWN = ['walk', 'cold-start']

function refused(parse: () => unknown): void {
  expect(parse).toThrow(expect.objectContaining({ name: 'Failure', code: 'usage' }) as Failure)
}

test('without flags: all cases, as many rounds as each case has, the usual link, bars are for information', () => {
  expect(parseFlags([], KNOWN)).toEqual({
    cases: [],
    rounds: undefined,
    link: { roundTripMs: 40, bytesPerSecond: 12.5e6 },
    strict: false,
    plot: false,
  })
})

test('cases and flags come in any order, values with or without an equals sign', () => {
  const wanted = {
    cases: ['walk'],
    rounds: 2,
    link: { roundTripMs: 5, bytesPerSecond: 125e6 },
    strict: true,
    plot: false,
  }
  expect(parseFlags(['--rounds', '2', 'walk', '--strict', '--link=rtt=5ms,rate=1gbit'], KNOWN)).toEqual(wanted)
  expect(parseFlags(['walk', '--link', 'rate=1gbit,rtt=5ms', '--rounds=2', '--strict'], KNOWN)).toEqual(wanted)
})

test('plots are drawn when they are asked for', () => {
  expect(parseFlags(['--plot'], KNOWN)).toMatchObject({ plot: true, cases: [] })
})

test('what a link leaves out is free', () => {
  expect(parseLink('rtt=2.5ms')).toEqual({ roundTripMs: 2.5, bytesPerSecond: Number.POSITIVE_INFINITY })
  expect(parseLink('rate=64kbit')).toEqual({ roundTripMs: 0, bytesPerSecond: 8000 })
})

test.each([
  '',
  'rtt=40',
  'rtt=-1ms',
  'rate=0mbit',
  'rtt=40mbit',
  'rate=1ms',
  'rtt=1e9ms',
  'loss=1',
  'rtt=10001ms',
  ',',
])('a link of %j is refused', (text) => refused(() => parseLink(text)))

test.each([
  ['wlak'],
  ['--rounds'],
  ['--rounds', '0'],
  ['--rounds', '1.5'],
  ['--rounds', '101'],
  ['--link'],
  ['--fast'],
])('%j is refused', (...words) => refused(() => parseFlags(words, KNOWN)))
