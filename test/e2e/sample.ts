// What `npm test` leaves out of the end-to-end tests: of those that differ only in who mounts, who pulls, or which way, one runs, each time the
// same, and elsewhere another. `npm run test:all` runs all of them. What is left out is told test by test.
import { createHash } from 'node:crypto'
import {
  type RunnerTask as Task,
  type RunnerTestFile as TestFile,
  TestRunner,
  type RunnerTestSuite as TestSuite,
} from 'vitest'

export const ALL = process.env.LAZYLAYER_TESTS === 'all'
/** Why one is left out that has no other of its kind. */
export const LONG = 'npm run test:all runs it'
const NOTE = 'another of its kind runs; npm run test:all runs all'
/** What makes tests differ, and does not change what they are about. */
const VARIANT =
  /\b(?:erofs|fuse|portable|layers|images|trixie|debian12|Podman \d[.\d]*|Buildah \d[.\d]*|\d\.\d+\.\d+|by (?:DiffID|index)|(?:victim|twin) first)\b|--(?:diffid|mount) \w+/g

/** Titles of one kind are equal. */
export const kindOf = (title: string) => title.replaceAll(VARIANT, '…')

/** @returns those of each kind that are left out */
export function leftOut<T extends { name: string }>(all: readonly T[], place: string): T[] {
  const kinds = Map.groupBy(all, ({ name }) => kindOf(name))
  return [...kinds].flatMap(([kind, tasks]) => {
    if (tasks.length === 1) return []
    const number = createHash('sha256').update(`${place} ${kind}`).digest().readUInt32LE()
    const kept = tasks[number % tasks.length]
    return tasks.filter((task) => task !== kept)
  })
}

const testsOf = (task: Task): Task[] => (task.type === 'suite' ? task.tasks.flatMap(testsOf) : [task])

/** Also in groups of groups. */
function within(group: TestSuite, place: string): Task[] {
  const runs = group.tasks.filter(({ mode }) => mode === 'run')
  const out = leftOut(runs, place)
  const more = runs.flatMap((task) =>
    task.type === 'suite' && !out.includes(task) ? within(task, `${place} > ${kindOf(task.name)}`) : [],
  )
  return [...out, ...more]
}

// vitest wants a default export here.
export default class SampleRunner extends TestRunner {
  /** vitest makes it send what it is given to whoever reports. */
  declare onTaskUpdate: (packs: unknown[], events: unknown[]) => Promise<void>

  async onCollected(files: TestFile[]): Promise<void> {
    if (ALL) return
    for (const file of files) {
      const out = within(file, file.name)
      for (const task of out) task.mode = 'skip'
      const tests = out.flatMap(testsOf)
      for (const test of tests) {
        test.mode = 'skip'
        test.result = { state: 'skip', note: NOTE } as NonNullable<Task['result']> // vitest reports a note that its type has not
      }
      await this.onTaskUpdate(
        tests.map(({ id, result, meta }) => [id, result, meta]),
        tests.map(({ id }) => [id, 'test-finished', undefined]),
      )
    }
  }
}
