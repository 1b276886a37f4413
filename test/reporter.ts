// What vitest's own report leaves out: every skipped test by name, with the reason, and the counts, for test/run.sh to add up.
import { writeFileSync } from 'node:fs'
import type { Reporter, TestModule } from 'vitest/node'

export interface Counts {
  passed: number
  failed: number
  skipped: number
  /** `file: name`, and the reason where the name does not end with it. */
  skips: string[]
}

/**
 * What came out. A file or a group that failed outside of its tests counts as one failure; a test that did not come to its end is
 * a failure, and so is each of `strayErrors`.
 */
export function counts(modules: readonly TestModule[], strayErrors: number): Counts {
  const all: Counts = { passed: 0, failed: strayErrors, skipped: 0, skips: [] }
  for (const module of modules) {
    all.failed += [module, ...module.children.allSuites()].filter((group) => group.errors().length > 0).length
    for (const test of module.children.allTests()) {
      const result = test.result()
      if (result.state === 'passed') all.passed++
      else if (result.state !== 'skipped') all.failed++
      else {
        all.skipped++
        all.skips.push(
          `${module.relativeModuleId}: ${test.fullName}${result.note === undefined ? '' : ` (${result.note})`}`,
        )
      }
    }
  }
  return all
}

export class SkipReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    const { passed, failed, skipped, skips } = counts(modules, errors.length)
    for (const skip of skips) process.stdout.write(`skipped: ${skip}\n`)
    const file = process.env.LAZYLAYER_COUNTS
    if (file !== undefined) writeFileSync(file, `${passed} ${failed} ${skipped}\n`)
  }
}
