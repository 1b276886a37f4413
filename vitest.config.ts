// Units run side by side first. Then end-to-end tests, two files at a time: each has work directories, registries, agents and engines of
// its own, and waits for them most of the time. At last, one after the other, those that look at the whole machine.
import { defineConfig } from 'vitest/config'
import { SkipReporter } from './test/reporter.ts'

// They end what hangs, and say nothing of how fast a machine is: one that is busy takes ten times as long as an idle one.
const DEADLINES = { testTimeout: 300_000, hookTimeout: 300_000, expect: { poll: { timeout: 120_000 } } }
/** The kernel's log, its caches, what it reads ahead, and thousands of mounts. */
const ALONE = ['erofs', 'native', 'readahead', 'many-layers'].map((name) => `test/e2e/${name}.test.ts`)

// vitest wants a default export here.
export default defineConfig({
  test: {
    reporters: ['default', new SkipReporter()],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts', 'bench/**/*.test.ts'],
          exclude: ['test/e2e/**'],
          sequence: { groupOrder: 1 },
          ...DEADLINES,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          exclude: ALONE,
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
          ...DEADLINES,
        },
      },
      {
        test: {
          name: 'e2e-alone',
          include: ALONE,
          fileParallelism: false,
          sequence: { groupOrder: 3 },
          ...DEADLINES,
        },
      },
    ],
  },
})
