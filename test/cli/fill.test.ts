import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { socketFor } from '../../src/agent/agent-places.ts'
import { type AgentAnswer, type AgentRequest, listen } from '../../src/agent/socket.ts'
import { command } from '../e2e/engines/command.ts'
import { folder } from '../store/folder.ts'

const LAUNCHER = fileURLToPath(new URL('../../src/cli/lazylayer.js', import.meta.url))
const NAME = 'registry.example.com/app:1'

/** With an agent that gives these answers in turn; none: nobody listens. */
async function fill(answers: readonly AgentAnswer[], ...more: string[]) {
  const dir = await folder()
  const asked: AgentRequest[] = []
  if (answers.length > 0) {
    const server = await listen(socketFor(join(dir, 'run'), join(dir, 'store')), async (request) => {
      asked.push(request)
      return answers[asked.length - 1] as AgentAnswer
    })
    onTestFinished(() => void server.close())
  }
  const env = { ...process.env, RUNTIME_DIRECTORY: join(dir, 'run') }
  const args = [LAUNCHER, 'fill', NAME, '--root', join(dir, 'store'), ...more]
  return { ...(await command(process.execPath, args, { env })), asked }
}

test('it asks until all is there, and says what came to which namespace', async () => {
  const filled = [
    { namespace: 'k8s.io', name: NAME, layers: 3, written: 2, bytes: 5_000_000 },
    { namespace: 'moby', name: NAME, layers: 3, written: 0, bytes: 0 },
  ]
  const late = { ok: false as const, what: 'no progress', late: true }
  const { code, stdout, asked } = await fill([late, { ok: true, filled }])
  expect(code).toBe(0)
  expect(stdout).toBe(
    `${NAME} in k8s.io: 3 layers, 2 brought, 5.0 MB\n${NAME} in moby: 3 layers, nothing was missing\n`,
  )
  expect(asked).toEqual([
    { op: 'fill', image: NAME },
    { op: 'fill', image: NAME },
  ])
})

test('what the agent says, and that there is none, is told', async () => {
  const refused = { ok: false as const, what: 'containerd has no image', fix: 'Pull it first.' }
  const { code, stderr, asked } = await fill([refused], '--namespace', 'moby')
  expect(code).toBe(1)
  expect(stderr).toMatch(/not brought to containerd\n.*containerd has no image\n.*Pull it first/)
  expect(asked).toEqual([{ op: 'fill', image: NAME, namespace: 'moby' }])
  expect(await fill([])).toMatchObject({ code: 1, stderr: expect.stringContaining('lazylayer serve --containerd') })
})
