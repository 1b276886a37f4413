// What a benchmark is: subjects that are measured in turns in one run, and the ratios that count.
import type { Probe } from './probe.ts'

/** Metric -> value, e.g. { seconds: 1.2, requests: 9 }. The name carries the unit. */
export type Sample = Readonly<Record<string, number>>

export type Turn = () => Promise<Sample>

export interface Subject {
  name: string
  /** What a program of others says that it is. */
  version?: () => Promise<string>
  /** Sets it up and returns what is done each turn. A failure here, or in a first turn that does not count, makes it absent. */
  open(): Promise<Turn>
}

/** `metric` of one subject over that of another; bigger is better for lazylayer. */
export interface Ratio {
  metric: string
  of: string
  over: string
  /** The bar; without one the ratio is for information. */
  atLeast?: number
}

export interface LinkShape {
  roundTripMs: number
  bytesPerSecond: number
}

export interface Context {
  /** The case's own empty folder, on the filesystem that is the comparator. */
  dir: string
  probe: Probe
  link: LinkShape
  /** Called when the case is over, last first, also when it failed. */
  defer(close: () => Promise<void>): void
}

export const ROUNDS = 5

export interface Case {
  readonly name: string
  /** What is measured, how, and what it stands for; for the reader of the table. */
  readonly explains: string
  readonly ratios: readonly Ratio[]
  /** Limit of each subject when nobody says how many; ROUNDS where it is left out. */
  readonly rounds?: number
  /** The link of the case whatever --link says: its bars are for this one. */
  readonly link?: LinkShape
  prepare(context: Context): Promise<Subject[]>
}
