import { expect, test } from 'vitest'
import { allowed, parseAmount, ROOM_LIMITS } from '../../src/store/room-limits.ts'

const GIB = 2 ** 30

test.each<[string, Parameters<typeof allowed>[0], Parameters<typeof allowed>[1], number]>([
  [
    'a share of what it has and what is free',
    ROOM_LIMITS,
    { used: 10 * GIB, free: 90 * GIB, total: 100 * GIB },
    80 * GIB,
  ],
  ['what is to stay free', ROOM_LIMITS, { used: 10 * GIB, free: 30 * GIB, total: 100 * GIB }, 20 * GIB],
  ['bytes', { max: { bytes: 5 * GIB }, minFree: { bytes: 0 } }, { used: 0, free: 90 * GIB, total: 100 * GIB }, 5 * GIB],
  ['a disk that others filled', ROOM_LIMITS, { used: 4 * GIB, free: 6 * GIB, total: 100 * GIB }, GIB],
  ['a small disk that others filled', ROOM_LIMITS, { used: 0, free: 1000, total: 100_000 }, 500],
])('%s is what the cache may have', (_, limits, space, want) => {
  expect(allowed(limits, space)).toBe(want)
})

test.each([
  ['80%', { percent: 80 }],
  ['0.5 %', undefined],
  ['1.5G', { bytes: 1.5 * GIB }],
  ['100M', { bytes: 100 * 2 ** 20 }],
  ['100MiB', { bytes: 100 * 2 ** 20 }],
  ['4096', { bytes: 4096 }],
  ['10k', { bytes: 10_240 }],
  ['101%', undefined],
  ['-1', undefined],
  ['G', undefined],
  ['much', undefined],
])('%s is read as an amount, or refused', (text, want) => {
  if (want === undefined) expect(() => parseAmount(text, '--cache-max')).toThrow(/--cache-max .* is no amount/)
  else expect(parseAmount(text, '--cache-max')).toEqual(want)
})
