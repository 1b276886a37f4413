// What vitest's own report leaves out: every skipped test by name, with the reason; and the counts and failures, for test/run.sh to add up and to
// say at the end of all, which is what is left of a long output that somebody cut.
import { writeFileSync } from 'node:fs'
import { stripVTControlCharacters } from 'node:util'
import type { Reporter, TestModule } from 'vitest/node'

/** Of an error's message, in characters: beyond it is what vitest prints itself. */
const MESSAGE = 1000

export interface Counts {
  passed: number
  failed: number
  skipped: number
  /** `file: name`, and the reason where the name does not end with it. */
  skips: string[]
  /** `file: name: message`, several lines each: as many as `failed`. */
  failures: string[]
}

/**
 * What came out. A file or a group that failed outside of its tests counts as one failure; a test that did not come to its end is
 * a failure, and so is each of `strayErrors`.
 */
export function counts(modules: readonly TestModule[], strayErrors: readonly unknown[]): Counts {
  const all: Counts = { passed: 0, failed: 0, skipped: 0, skips: [], failures: [] }
  const fail = (name: string, errors: readonly unknown[]) => {
    all.failed++
    all.failures.push(`${name}: ${messageOf(errors)}`)
  }
  for (const module of modules) {
    const nameOf = ({ fullName }: { fullName: string }) => `${module.relativeModuleId}: ${fullName}`
    if (module.errors().length > 0) fail(module.relativeModuleId, module.errors())
    for (const suite of module.children.allSuites()) {
      if (suite.errors().length > 0) fail(nameOf(suite), suite.errors())
    }
    for (const test of module.children.allTests()) {
      const result = test.result()
      if (result.state === 'passed') all.passed++
      else if (result.state !== 'skipped') fail(nameOf(test), result.errors ?? [])
      else {
        all.skipped++
        all.skips.push(`${nameOf(test)}${result.note === undefined ? '' : ` (${result.note})`}`)
      }
    }
  }
  for (const error of strayErrors) fail('outside of tests', [error])
  return all
}

/** The first error's message, where in the tests it came from, and the difference if it has one. */
function messageOf(errors: readonly unknown[]): string {
  const first = errors[0] as { message?: string; stack?: string; diff?: string } | undefined
  if (first === undefined) return 'did not come to its end'
  const place = first.stack?.split('\n').find((line) => /\/(test|bench)\//.test(line)) ?? ''
  const said = [first.message ?? String(first), place, first.diff ?? ''].filter((part) => part !== '').join('\n')
  return stripVTControlCharacters(said).slice(0, MESSAGE)
}

export class SummaryReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const { passed, failed, skipped, skips, failures } = counts(modules, errors)
    for (const skip of skips) process.stdout.write(`skipped: ${skip}\n`)
    const file = process.env.LAZYLAYER_COUNTS
    if (file === undefined) return
    writeFileSync(
      file,
      [`${passed} ${failed} ${skipped}`, ...failures.map((failure) => `failed: ${failure}`), ''].join('\n'),
    )
  }
}
