import { expect, test } from 'vitest'
import { findEngines } from '../../src/engines/here.ts'
import type { Answered } from '../../src/engines/program.ts'

test('an engine that does not answer is told from one that is not there', async () => {
  const says = (stdout: string): Answered => ({ code: 0, stdout, stderr: '', why: undefined })
  const broken: Answered = { code: 125, stdout: '', stderr: 'x', why: 'it ended with 125: x' }
  const asked: string[] = []
  const answers: Record<string, Answered | undefined> = {
    podman: broken,
    crio: says('crio version 1.37.0\n'),
    buildah: says('hello\n'),
  }
  const { found, silent } = await findEngines(async (program, args) => {
    asked.push([program, ...args].join(' '))
    return answers[program]
  })
  expect(found).toEqual([{ engine: 'crio', era: 'image', version: { major: 1, minor: 37, text: '1.37.0' } }])
  expect(silent).toEqual([
    { engine: 'podman', why: 'it ended with 125: x' },
    { engine: 'buildah', why: 'what it prints has no version number' },
  ])
  expect(asked).toEqual(['podman --version', 'crio --version', 'buildah --version', 'skopeo --version'])
})
