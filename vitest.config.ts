// Two projects: units run side by side, then end-to-end tests one file after another, because engines, mounts and registries are heavy.
import { defineConfig } from 'vitest/config'
import { SkipReporter } from './test/reporter.ts'

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
          testTimeout: 20_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          fileParallelism: false,
          sequence: { groupOrder: 2 },
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
    ],
  },
})
