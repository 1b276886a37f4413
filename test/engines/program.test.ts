import { ChildProcess } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { runProgram } from '../../src/engines/program.ts'
import { folder } from '../store/folder.ts'

/** A shell script, run with a limit if one is given. */
async function run(script: string, { mode = 0o755, timeoutMs }: { mode?: number; timeoutMs?: number } = {}) {
  const path = join(await folder(), 'program')
  await writeFile(path, `#!/bin/sh\n${script}\n`, { mode })
  return await runProgram(path, ['--version'], timeoutMs)
}

test('what a program says, and how it ended', async () => {
  expect(await run('echo "$1"; echo "$LC_ALL" >&2')).toEqual({
    code: 0,
    stdout: '--version\n',
    stderr: 'C\n',
    why: undefined,
  })
  expect(await run('cat; echo hello; exit 3')).toMatchObject({ code: 3, stdout: 'hello\n', why: 'it ended with 3' })
})

test('of one that fails, the first line that it says of that, cut', async () => {
  expect(await run('echo "no policy" >&2; echo more >&2; exit 125')).toMatchObject({
    why: 'it ended with 125: no policy',
  })
  const { why } = (await run('head -c 5000 /dev/zero | tr "\\0" x >&2; exit 1')) ?? {}
  expect(why).toBe(`it ended with 1: ${'x'.repeat(300)}`)
})

test('one that does not end, or is ended, or may not be run, is there all the same', async () => {
  expect(await run('exec sleep 600', { timeoutMs: 50 })).toMatchObject({
    code: undefined,
    why: 'it did not end within 50 ms',
  })
  expect(await run('kill -SEGV $$')).toMatchObject({ code: undefined, why: 'it was ended by SIGSEGV' })
  expect(await run('', { mode: 0o644 })).toMatchObject({
    code: undefined,
    why: expect.stringMatching(/^it cannot be run: .*EACCES/),
  })
  expect(await run('exec head -c 3000000 /dev/zero')).toMatchObject({
    code: undefined,
    why: 'it printed more than 1048576 bytes',
  })
})

test('one that cannot be killed is left behind', async () => {
  const place = join(await folder(), 'pid')
  // as in an uninterruptible wait: the signal changes nothing
  const kill = vi.spyOn(ChildProcess.prototype, 'kill').mockReturnValue(true)
  onTestFinished(async () => {
    kill.mockRestore()
    process.kill(Number(await readFile(place, 'utf8')), 'SIGKILL')
  })
  expect(await run(`echo $$ >${place}; exec sleep 600`, { timeoutMs: 3_000 })).toEqual({
    code: undefined,
    stdout: '',
    stderr: '',
    why: 'it did not end within 3000 ms, nor when it was killed',
  })
})

test('one that cannot be given its arguments is there all the same', async () => {
  expect(await runProgram('/bin/true', ['x'.repeat(1 << 20)])).toMatchObject({
    code: undefined,
    why: expect.stringMatching(/^it cannot be run: .*E2BIG/),
  })
})

test('one that is not there is undefined', async () => {
  expect(await runProgram(join(await folder(), 'none'), [])).toBeUndefined()
})
