// Limit and ratios. Subjects take turns (A B B A A B …), and a ratio is formed within a round, between neighbours in time: a machine
// that is slow for a while slows both, and what a turn leaves the machine to do is not always in the way of the same one.
import { describe } from '../src/errors.ts'
import type { Ratio, Sample, Subject, Turn } from './case.ts'

export interface Samples {
  name: string
  version?: string
  samples: readonly Sample[]
}

export interface Measured extends Ratio {
  /** Over the rounds; undefined when one of the two was absent or had nothing to divide by. */
  median?: number
  least?: number
  most?: number
}

/** A subject that cannot be measured here, and why. */
export interface Absent {
  name: string
  why: string
}

/**
 * Samples all subjects `rounds` times in turns, after one turn each that does not count: it warms what is to be warm, and shows
 * which subjects can be measured at all.
 */
export async function takeTurns(
  subjects: readonly Subject[],
  rounds: number,
): Promise<{ measured: Samples[]; absent: Absent[] }> {
  const turns: { turn: Turn; name: string; version?: string; samples: Sample[] }[] = []
  const absent: Absent[] = []
  for (const { name, version, open } of subjects) {
    try {
      const turn = await open()
      await turn()
      turns.push({ turn, name, ...(version === undefined ? {} : { version: await version() }), samples: [] })
    } catch (error) {
      absent.push({ name, why: describe(error) })
    }
  }
  for (let round = 0; round < rounds; round++) {
    for (const { turn, samples } of round % 2 === 0 ? turns : turns.toReversed()) samples.push(await turn())
  }
  return { measured: turns.map(({ turn: _, ...measured }) => measured), absent }
}

/** @returns undefined for no values */
export function median(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b)
  const upper = sorted[sorted.length >> 1]
  const lower = sorted[(sorted.length - 1) >> 1]
  return upper === undefined || lower === undefined ? undefined : (lower + upper) / 2
}

/** The value that 99 of 100 do not pass (nearest rank): of fewer than 100 values the largest. @returns undefined for no values */
export function percentile99(values: readonly number[]): number | undefined {
  return values.toSorted((a, b) => a - b)[Math.ceil(values.length * 0.99) - 1]
}

export function medians(samples: readonly Sample[]): Sample {
  return eachMetric(samples, median)
}

/** @param of says one number of several */
export function eachMetric(samples: readonly Sample[], of: (values: readonly number[]) => number | undefined): Sample {
  const result: Record<string, number> = {}
  for (const metric of Object.keys(samples[0] ?? {})) {
    const value = of(samples.flatMap((each) => each[metric] ?? []))
    if (value !== undefined) result[metric] = value
  }
  return result
}

/** The median, over the rounds, of each round's own ratio. */
export function measure(ratio: Ratio, all: readonly Samples[]): Measured {
  const of = all.find((each) => each.name === ratio.of)?.samples ?? []
  const over = all.find((each) => each.name === ratio.over)?.samples ?? []
  const rounds = of.flatMap((sample, round) => {
    const value = (sample[ratio.metric] ?? Number.NaN) / (over[round]?.[ratio.metric] ?? Number.NaN)
    return Number.isFinite(value) ? value : []
  })
  const middle = median(rounds)
  if (middle === undefined) return { ...ratio }
  return { ...ratio, median: middle, least: Math.min(...rounds), most: Math.max(...rounds) }
}

/** A bar that could not be measured is not met. */
export function missed({ atLeast, median }: Measured): boolean {
  return atLeast !== undefined && (median === undefined || median < atLeast)
}
