// The counts that CI is told, from a run of vitest over tests that fail in every way there is.
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

let dir: string

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lazy-reporter-'))
  await mkdir(join(dir, 'test'))
  await symlink(join(ROOT, 'node_modules'), join(dir, 'node_modules'))
  await writeFile(join(dir, 'package.json'), '{"type":"module"}')
  const reporter = JSON.stringify(join(ROOT, 'test/reporter.ts'))
  await writeFile(
    join(dir, 'vitest.config.ts'),
    `import { SummaryReporter } from ${reporter}\nexport default { test: { reporters: [new SummaryReporter()] } }`,
  )
})

afterEach(() => rm(dir, { recursive: true }))

async function run(files: Record<string, string>): Promise<{ counts: string; failures: string[]; skips: string[] }> {
  for (const [name, source] of Object.entries(files)) {
    await writeFile(join(dir, 'test', name), `import { beforeAll, describe, expect, test } from 'vitest'\n${source}`)
  }
  const env = { ...process.env, LAZYLAYER_COUNTS: join(dir, 'counts') }
  const vitest = join(ROOT, 'node_modules/vitest/vitest.mjs')
  const stdout = await new Promise<string>((resolve) => {
    execFile(process.execPath, [vitest, 'run'], { cwd: dir, env, timeout: 60_000 }, (_, printed) => resolve(printed))
  })
  const skips = stdout.split('\n').filter((line) => line.startsWith('skipped: '))
  const [counts = '', ...failures] = (await readFile(join(dir, 'counts'), 'utf8')).split(/\n(?:failed: )?/)
  return { counts, failures, skips }
}

test('what passed, failed and was skipped is counted, and each skip is named with its reason', {
  timeout: 60_000,
}, async () => {
  const { counts, failures, skips } = await run({
    'a.test.ts': `
test('good', () => expect(1).toBe(1))
test('bad', () => expect(1).toBe(2))
test.skip('left out (no root)', () => {})
test('noted', ({ skip }) => skip('no kernel'))`,
  })
  expect(counts).toBe('1 1 2')
  expect(failures.join('\n')).toMatch(
    /^test\/a\.test\.ts: bad: expected 1 to be 2.*\n.*\/test\/a\.test\.ts:4:\d+.*\n- Expected\n/,
  )
  expect(skips).toEqual(['skipped: test/a.test.ts: left out (no root)', 'skipped: test/a.test.ts: noted (no kernel)'])
})

test('a failure outside of tests is a failure: in a hook, in a file, in nobody’s promise', {
  timeout: 60_000,
}, async () => {
  const { counts, failures } = await run({
    'hook.test.ts': `describe('group', () => { beforeAll(() => { throw new Error('hook') }); test('never run', () => {}) })`,
    'file.test.ts': `throw new Error('file')`,
    'stray.test.ts': `test('stray', async () => { void Promise.reject(new Error('stray')); await new Promise((r) => setTimeout(r, 50)) })`,
  })
  expect(counts).toBe('1 3 1')
  const named = failures.filter((line) => /^(test\/|outside)/.test(line))
  expect(named.sort()).toEqual(['outside of tests: stray', 'test/file.test.ts: file', 'test/hook.test.ts: group: hook'])
})
