// The start of an image that nobody prepared, beside a full pull, over links from a machine's neighbour to another continent.
import { join } from 'node:path'
import type { Case, Context, LinkShape, Sample, Subject, Turn } from '../case.ts'
import { serveLayout, TAG, writeTreeImage } from '../image.ts'
import { MANY, someOfMany } from '../some-of-many.ts'
import type { TreeShape } from '../tree.ts'

const ROUND_TRIPS_MS = [0, 10, 40, 150]
/** A quarter of the image is enough to wait for on a slow link. */
const RATES: readonly { megabits: number; shape: TreeShape }[] = [
  { megabits: 20, shape: { ...MANY, directories: MANY.directories / 4 } },
  { megabits: 100, shape: MANY },
  { megabits: 1000, shape: MANY },
]
/** What a lazy start may take: 1.05 times the pull, and two round trips. */
const BOUND = 'bound s'
const BOUND_TIMES = 1.05
const BOUND_ROUND_TRIPS = 2

const PULLED = 'full pull'
const LAZY = 'lazylayer'

const over = (who: string, roundTripMs: number) => `${who}, ${roundTripMs} ms`

export const coldStartLinks: readonly Case[] = RATES.map(({ megabits, shape }) => ({
  name: `cold-start-${megabits}mbit`,
  explains: `The start of "cold-start" whose image says nothing about it${shape === MANY ? '' : ' (a quarter of the files)'}, over links of ${megabits} Mbit/s and several
    round trips. "${BOUND}": of "${PULLED}" the time that a lazy start may take, which is ${BOUND_TIMES} times the pull's and
    ${BOUND_ROUND_TRIPS} round trips; of "${LAZY}" the time that it took.`,
  rounds: 3,
  ratios: ROUND_TRIPS_MS.flatMap((ms) => [
    { metric: BOUND, of: over(PULLED, ms), over: over(LAZY, ms), atLeast: 1 },
    { metric: 'MB in all', of: over(PULLED, ms), over: over(LAZY, ms), atLeast: 1 / 1.02 },
    { metric: 'first byte s', of: over(PULLED, ms), over: over(LAZY, ms) },
  ]),
  prepare: (context: Context) => prepare(context, megabits, shape),
}))

async function prepare(context: Context, megabits: number, shape: TreeShape): Promise<Subject[]> {
  const { dir, defer } = context
  const start = await someOfMany(context, shape)
  const layout = join(dir, 'image')
  await writeTreeImage({ source: start.source, dir: layout })
  const subjects: Subject[] = []
  for (const roundTripMs of ROUND_TRIPS_MS) {
    const link: LinkShape = { roundTripMs, bytesPerSecond: (megabits * 1e6) / 8 }
    const image = await serveLayout(layout, TAG, defer, link)
    const bounded = (turn: Turn, bound: (exit: number) => number) => async (): Promise<Sample> => {
      const sample = await turn()
      return { ...sample, [BOUND]: bound(sample['exit s'] ?? Number.NaN) }
    }
    const mayTake = (exit: number) => BOUND_TIMES * exit + (BOUND_ROUND_TRIPS * roundTripMs) / 1000
    subjects.push(
      { name: over(PULLED, roundTripMs), open: async () => bounded(start.pulled(image), mayTake) },
      { name: over(LAZY, roundTripMs), open: async () => bounded(start.lazily(image), (exit) => exit) },
    )
  }
  return subjects
}
