// Units run side by side first. Then, one after the other, end-to-end tests that look at the whole machine. At last the others, four files
// at a time: each has work directories, registries, agents and engines of its own, and waits for them most of the time. test/run.sh has
// the units in a process of their own beside the rest.
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'
import { SummaryReporter } from './test/reporter.ts'

// They end what hangs, and say nothing of how fast a machine is: one that is busy takes ten times as long as an idle one.
const DEADLINES = { testTimeout: 300_000, hookTimeout: 300_000, expect: { poll: { timeout: 120_000 } } }
/** As for agents (src/cli/lazylayer.js): V8 may end a process that frees what it made for calls from WebAssembly, such as Node's own for types. */
const NODE_FLAGS = { execArgv: ['--wasm-wrapper-tiering-budget=2000000000'] }
/** The kernel's log, its caches, what it reads ahead, and thousands of mounts. */
const ALONE = ['erofs', 'native', 'readahead', 'many-layers'].map((name) => `test/e2e/${name}.test.ts`)
/** The longest first: one of them that began last would go on when all others have ended. */
const LONGEST = [
  ...['installed', 'trees', 'agreement', 'damage', 'outages', 'proven', 'formats', 'nydus-doors', 'image-store', 'lifecycle', 'kernel'],
  ...['integrity', 'cache-room', 'pods', 'copies', 'image-ids', 'any-image', 'rootless', 'leaving', 'store-access', 'reach', 'podman'],
]

/** Threads that tests start, one a cache and more, take what Node made of our sources from where agents keep it (src/cli/lazylayer.js). */
process.env.NODE_COMPILE_CACHE ??= fileURLToPath(new URL('.cache/node', import.meta.url))

/** No test has anything of the public's authorities, and each agent would read some six hundred certificates. */
process.env.SSL_CERT_FILE ??= '/dev/null'
process.env.SSL_CERT_DIR ??= fileURLToPath(new URL('.cache/no-authorities', import.meta.url))
mkdirSync(process.env.SSL_CERT_DIR, { recursive: true })

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification) => {
      const at = LONGEST.findIndex((name) => moduleId.endsWith(`/test/e2e/${name}.test.ts`))
      return at < 0 ? LONGEST.length : at
    }
    return (await super.sort(files)).sort((a, b) => place(a) - place(b))
  }
}

// vitest wants a default export here.
export default defineConfig({
  test: {
    reporters: ['default', new SummaryReporter()],
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts', 'bench/**/*.test.ts'],
          exclude: ['test/e2e/**'],
          maxWorkers: '100%', // vitest leaves a core to itself
          restoreMocks: true,
          sequence: { groupOrder: 1 },
          ...NODE_FLAGS,
          ...DEADLINES,
        },
      },
      {
        test: {
          name: 'e2e-alone',
          include: ALONE,
          fileParallelism: false,
          globalSetup: 'test/e2e/as-installed.ts',
          runner: 'test/e2e/sample.ts',
          sequence: { groupOrder: 2 },
          ...NODE_FLAGS,
          ...DEADLINES,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          exclude: ALONE,
          maxWorkers: 4,
          globalSetup: 'test/e2e/as-installed.ts',
          runner: 'test/e2e/sample.ts',
          sequence: { groupOrder: 3 },
          ...NODE_FLAGS,
          ...DEADLINES,
        },
      },
    ],
  },
})
