// The benchmark's command line.
import { Failure } from '../src/errors.ts'
import type { LinkShape } from './case.ts'

export interface Flags {
  /** None named: all. */
  cases: string[]
  /** Undefined: each case's own. */
  rounds: number | undefined
  link: LinkShape
  strict: boolean
  /** Makes tables and plots of what was recorded, and measures nothing. */
  plot: boolean
}

export const USAGE = `npm run bench [-- CASE…] [--rounds N] [--link rtt=40ms,rate=100mbit] [--strict]
       npm run bench -- --plot

  CASE       what to run; without one, everything
  --rounds   how often each subject has its turn (default: as the case has it, else 5)
  --link     the link between registry and agent, for the cases that have one (default rtt=40ms,rate=100mbit)
  --strict   exit 1 when a bar is missed
  --plot     measures nothing, and makes the tables and plots of docs/performance.md anew from what was recorded
`

const ROUNDS_MAX = 100
/** A link between continents with a modem's rate is the slowest that ends in reasonable time. */
const ROUND_TRIP_MAX_MS = 10_000
const UNITS: Readonly<Record<string, number>> = { kbit: 1e3 / 8, mbit: 1e6 / 8, gbit: 1e9 / 8 }

/** @throws Failure usage */
export function parseFlags(words: readonly string[], known: readonly string[]): Flags {
  const flags: Flags = {
    cases: [],
    rounds: undefined,
    link: parseLink('rtt=40ms,rate=100mbit'),
    strict: false,
    plot: false,
  }
  const rest = words.flatMap((word) => (/^--\w+=/.test(word) ? splitOnce(word, '=') : [word]))
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === '--strict') flags.strict = true
    else if (word === '--plot') flags.plot = true
    else if (word === '--rounds') flags.rounds = parseRounds(rest.shift())
    else if (word === '--link') flags.link = parseLink(rest.shift() ?? '')
    else if (known.includes(word)) flags.cases.push(word)
    else throw Failure.usage(`${word}: no such case or flag`, { fix: `Cases are ${known.join(', ')}.` })
  }
  return flags
}

function parseRounds(text: string | undefined): number {
  const rounds = Number(text)
  if (Number.isInteger(rounds) && rounds >= 1 && rounds <= ROUNDS_MAX) return rounds
  throw Failure.usage(`--rounds ${text ?? ''}: want a number from 1 to ${ROUNDS_MAX}`)
}

/** `rtt=40ms,rate=100mbit`; what is left out is free. @throws Failure usage */
export function parseLink(text: string): LinkShape {
  const link: LinkShape = { roundTripMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY }
  for (const part of text.split(',')) {
    const [, key, digits, unit] = /^(rtt|rate)=([0-9]+(?:\.[0-9]+)?)(ms|[kmg]bit)$/.exec(part) ?? []
    const value = Number(digits)
    const rate = UNITS[unit ?? '']
    if (key === 'rtt' && unit === 'ms' && value <= ROUND_TRIP_MAX_MS) link.roundTripMs = value
    else if (key === 'rate' && rate !== undefined && value > 0) link.bytesPerSecond = value * rate
    else throw Failure.usage(`--link ${text}: want rtt=N ms and rate=N kbit, mbit or gbit, as in rtt=40ms,rate=100mbit`)
  }
  return link
}

function splitOnce(text: string, by: string): string[] {
  const at = text.indexOf(by)
  return [text.slice(0, at), text.slice(at + 1)]
}
