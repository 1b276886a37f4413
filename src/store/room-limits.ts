// How much of a disk the cache may have.
import { Failure } from '../errors.ts'

export type Amount = { readonly bytes: number } | { readonly percent: number }

export interface RoomLimits {
  /** Of what the cache has and what is free. */
  readonly max: Amount
  /** Of the disk. */
  readonly minFree: Amount
}

/** Kubelet deletes images where a disk is used to 85 %, and the cache is no reason for that. */
export const ROOM_LIMITS: RoomLimits = { max: { percent: 80 }, minFree: { percent: 20 } }

/** On a disk that others have filled, the cache still has half of what is left, up to so much: less would keep nothing. */
const LEFT_MAX_BYTES = 2 ** 30

export interface DiskSpace {
  /** Of the cache. */
  used: number
  /** That this user may have. */
  free: number
  total: number
}

/** Bytes that the cache may have. */
export function allowed({ max, minFree }: RoomLimits, { used, free, total }: DiskSpace): number {
  const all = used + free
  const most = 'bytes' in max ? max.bytes : (all * max.percent) / 100
  const kept = 'bytes' in minFree ? minFree.bytes : (total * minFree.percent) / 100
  return Math.floor(Math.min(most, Math.max(all - kept, Math.min(LEFT_MAX_BYTES, all / 2))))
}

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

/** `80%`, `20G`, `500M`, `1048576`: bytes in powers of 1024. @throws Failure usage; `flag` names it */
export function parseAmount(text: string, flag: string): Amount {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)(%|[KMGT]?)(?:i?B)?$/i.exec(text.trim()) ?? []
  const value = Number(number)
  if (number === undefined || (unit === '%' && value > 100)) {
    throw Failure.usage(`${flag} ${JSON.stringify(text)} is no amount`, {
      fix: `Write bytes (${flag} 20G) or a share (${flag} 50%).`,
    })
  }
  return unit === '%' ? { percent: value } : { bytes: Math.floor(value * (UNITS[unit.toUpperCase()] as number)) }
}
