import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { unifiedDiff } from '../../../src/cli/setup/diff.ts'
import { runProgram } from '../../../src/engines/program.ts'
import { runs } from '../../fixtures/runs.ts'
import { folder } from '../../store/folder.ts'

const lines = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `${from + i}\n`).join('')

test('equal texts differ in nothing', () => {
  expect(unifiedDiff('/a', 'x\n', 'x\n')).toBe('')
  expect(unifiedDiff('/a', undefined, undefined)).toBe('')
})

test('a file that is made, and one that is removed', () => {
  expect(unifiedDiff('/etc/a', undefined, 'x\n')).toBe('--- /dev/null\n+++ b/etc/a\n@@ -0,0 +1,1 @@\n+x\n')
  expect(unifiedDiff('/etc/a', 'x\n', undefined)).toBe('--- a/etc/a\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-x\n')
})

test('differences far from each other have three lines of context each', () => {
  const before = lines(1, 40)
  const after = before.replace('5\n', '5\nnew\n').replace('30\n', '')
  expect(unifiedDiff('/a', before, after)).toBe(
    [
      '--- a/a\n+++ b/a\n',
      '@@ -3,6 +3,7 @@\n 3\n 4\n 5\n+new\n 6\n 7\n 8\n',
      '@@ -27,7 +28,6 @@\n 27\n 28\n 29\n-30\n 31\n 32\n 33\n',
    ].join(''),
  )
})

test('a missing line feed at the end is said', () => {
  expect(unifiedDiff('/a', 'x', 'x\n')).toContain('-x\n\\ No newline at end of file\n+x\n')
})

const texts = fc
  .array(fc.constantFrom('a', 'b', 'c', ''), { maxLength: 25 })
  .map((each) => each.map((x) => `${x}\n`).join(''))

const hasPatch = (await runProgram('patch', ['--version'])) !== undefined

test.skipIf(!hasPatch)('patch makes the new text of the old one (needs the package patch)', async () => {
  const file = join(await folder(), 'a')
  await fc.assert(
    fc.asyncProperty(texts, texts, async (before, after) => {
      fc.pre(before !== after)
      await writeFile(file, before)
      await writeFile(`${file}.diff`, unifiedDiff('/a', before, after))
      const patched = await runProgram('patch', ['--quiet', '--output=-', file, `${file}.diff`])
      expect({ code: patched?.code, text: patched?.stdout }).toEqual({ code: 0, text: after })
    }),
    { numRuns: runs(20) },
  )
})
