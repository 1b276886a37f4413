// --background and --background-max: what is fetched that nobody waits for.
import { Failure } from '../errors.ts'
import type { Manners } from '../fetch/wire.ts'
import { parseAmount } from '../store/room-limits.ts'
import { text, type Values } from './values.ts'

/**
 * off   nothing but what is asked for, and what lies beside it
 * idle  the rest of an image that is read, where the link has nothing else to do
 * full  the same, as fast as a pull
 */
export const BACKGROUNDS = ['off', 'idle', 'full'] as const

/** How the background behaves; undefined: there is none. @throws Failure usage */
export function backgroundOf(values: Values): Manners | undefined {
  const wanted = text(values, 'background') ?? 'idle'
  const max = text(values, 'background-max')
  const maxBytesPerSecond = max === undefined ? Number.POSITIVE_INFINITY : rateOf(max)
  return wanted === 'off' ? undefined : { standsAside: wanted === 'idle', maxBytesPerSecond }
}

/** @throws Failure usage */
function rateOf(max: string): number {
  const amount = parseAmount(max, '--background-max')
  if ('bytes' in amount && amount.bytes > 0) return amount.bytes
  throw Failure.usage(`--background-max ${max} is no rate`, {
    fix: 'Write bytes a second, 10M say; --background off fetches none.',
  })
}
