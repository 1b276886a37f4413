// Two projects: units run side by side, then end-to-end tests one file after another, because engines, mounts and registries are heavy.
import { defineConfig } from 'vitest/config'
import { SkipReporter } from './test/reporter.ts'

// They end what hangs, and say nothing of how fast a machine is: one that is busy takes ten times as long as an idle one.
const DEADLINES = { testTimeout: 300_000, hookTimeout: 300_000 }

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
          ...DEADLINES,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          fileParallelism: false,
          sequence: { groupOrder: 2 },
          ...DEADLINES,
        },
      },
    ],
  },
})
