// What hostile indexes leave behind: a process of its own opens them, and says how much memory it has after.
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { folder } from '../store/folder.ts'

const PROGRAM = fileURLToPath(new URL('../fixtures/index-memory.ts', import.meta.url))
const MIB_EACH = 120

test('eight indexes that inflate to a gigabyte share one bound, leave nothing, and keep no honest one waiting', async () => {
  const dir = await folder()
  await promisify(execFile)(process.execPath, [PROGRAM, dir, '8', String(MIB_EACH)])
  const { before, peak, after, isFirst, outcomes } = JSON.parse(await readFile(join(dir, 'result.json'), 'utf8'))
  expect(outcomes.filter((each: string) => each === 'opened')).toHaveLength(5)
  expect(outcomes.filter((each: string) => each === 'corrupt')).toHaveLength(3)
  expect(isFirst).toBe(true)
  expect(after - before).toBeLessThan(300)
  // 576 for what they inflate to; the rest is what threads take
  expect(peak - before).toBeLessThan(1100)
})
