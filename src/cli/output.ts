// What commands print.
import { printable, printableJson } from '../agent/log.ts'
import { Failure } from '../errors.ts'
import type { Unit } from '../format/format.ts'
import { type Digest, hex } from '../image/digest.ts'

/** Columns padded to their widest cell, each line ended. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows]
  const widths = head.map((_, i) => all.reduce((most, row) => Math.max(most, (row[i] ?? '').length), 0))
  const line = (row: readonly string[]) => row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')
  return all.map((row) => `${line(row).trimEnd()}\n`).join('')
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB']

/** Decimal units, as registries count: `12.1 MB`. */
export function sizeText(bytes: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), UNITS.length - 1)
  return power === 0 ? `${bytes} B` : `${(bytes / 1000 ** power).toFixed(1)} ${UNITS[power]}`
}

/** `1 layer`, `2 layers`. */
export function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`
}

/** Enough of a digest to tell an image's layers apart. */
export function shortDigest(digest: Digest): string {
  return hex(digest).slice(0, 12)
}

/** `estargz`, `nydus RAFS v6`. */
export function formatText({ format, version }: Pick<Unit, 'format' | 'version'>): string {
  return version === undefined ? format : `${format} ${version}`
}

export function printJson(value: unknown): void {
  process.stdout.write(`${printableJson(JSON.stringify(value, undefined, 2))}\n`)
}

/** An error in at most three lines: what, why, what to do. Faults of our own come with their stack. */
export function errorText(error: unknown): string {
  if (error instanceof Failure) {
    const lines = [`lazylayer: ${printable(error.message)}`]
    if (error.why !== undefined) lines.push(`  why: ${printable(error.why)}`)
    if (error.fix !== undefined) lines.push(`  try: ${printable(error.fix)}`)
    return `${lines.join('\n')}\n`
  }
  // the system's own errors say enough
  if (error instanceof Error && 'code' in error) return `lazylayer: ${printable(error.message)}\n`
  return `lazylayer: ${error instanceof Error ? (error.stack ?? error.message) : error}\n`
}

/** Exit codes: 0 done, 1 failed, 2 the command line is wrong. */
export function exitCode(error: unknown): number {
  return error instanceof Failure && error.code === 'usage' ? 2 : 1
}
