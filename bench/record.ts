// What a run leaves behind: a table for people, JSON for comparison. Neither names a host, a path or a user.
import { availableParallelism, release } from 'node:os'
import type { Case, LinkShape, Sample } from './case.ts'
import { type Absent, eachMetric, type Measured, medians, missed, percentile99, type Samples } from './measure.ts'

export interface Outcome {
  case: Case
  rounds: number
  link: LinkShape
  subjects: readonly Samples[]
  absent: readonly Absent[]
  ratios: readonly Measured[]
}

/** The part of a record that is shown elsewhere. */
export interface Recorded {
  case: string
  rounds: number
  subjects: readonly { name: string; median: Readonly<Record<string, number>> }[]
}

/** JSON text for `bench/record/<case>.json`; of a run in which somebody was absent nothing is kept (their reasons name paths). */
export function record({
  case: { name, explains },
  rounds,
  link,
  subjects,
  absent,
  ratios,
}: Outcome): string | undefined {
  if (absent.length > 0) return undefined
  const rate = Number.isFinite(link.bytesPerSecond) ? link.bytesPerSecond : null
  const what = {
    case: name,
    explains: explains.replaceAll(/\s+/g, ' '),
    machine: {
      node: process.version,
      kernel: /^[\d.]+/.exec(release())?.[0] ?? 'unknown', // a build's own suffix says whose machine it is
      architecture: process.arch,
      cpus: availableParallelism(),
    },
    link: { roundTripMs: link.roundTripMs, bytesPerSecond: rate },
    rounds,
    ratios: ratios.map((each) => ({ ...each, met: each.atLeast === undefined ? null : !missed(each) })),
    subjects: subjects.map(({ samples, ...named }) => ({
      ...named,
      median: medians(samples),
      p99: eachMetric(samples, percentile99),
      samples,
    })),
  }
  return `${JSON.stringify(what, (_, value) => (typeof value === 'number' ? Number(value.toPrecision(6)) : value), 2)}\n`
}

/** The same for a terminal. */
export function table({ case: { name, explains }, rounds, subjects, absent, ratios }: Outcome): string {
  const metrics = [...new Set(subjects.flatMap(({ samples }) => Object.keys(samples[0] ?? {})))]
  const rows = [
    ['', ...metrics],
    ...subjects.flatMap(({ name, samples }) => {
      const row = (title: string, of: Sample) => [title, ...metrics.map((metric) => number(of[metric]))]
      return [row(name, medians(samples)), row('  p99', eachMetric(samples, percentile99))]
    }),
  ]
  const lines = [
    `${name} (medians of ${rounds})`,
    ...wrap(explains, 100).map((line) => `  ${line}`),
    ...columns(rows).map((line) => `    ${line}`),
    ...absent.map((each) => `    ${each.name}: not measured: ${each.why}`),
    ...ratios.map((each) => `  ${ratioLine(each)}`),
  ]
  return `${lines.join('\n')}\n`
}

function ratioLine(ratio: Measured): string {
  const value = ratio.median === undefined ? 'not measured' : `${number(ratio.median)}×`
  const spread = ratio.median === undefined ? '' : ` (${number(ratio.least)} to ${number(ratio.most)})`
  const bar = ratio.atLeast === undefined ? '' : `, bar ${number(ratio.atLeast)}×: ${missed(ratio) ? 'MISSED' : 'met'}`
  return `${ratio.metric}, ${ratio.of} : ${ratio.over} = ${value}${spread}${bar}`
}

/** With three digits at least. */
export function number(value: number | undefined): string {
  if (value === undefined) return '-'
  return value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3)
}

function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)))
  return rows.map((row) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  '),
  )
}

function wrap(text: string, width: number): string[] {
  const lines = ['']
  for (const word of text.split(/\s+/)) {
    const last = lines.length - 1
    const line = lines[last] ?? ''
    if (line !== '' && line.length + 1 + word.length > width) lines.push(word)
    else lines[last] = line === '' ? word : `${line} ${word}`
  }
  return lines
}
