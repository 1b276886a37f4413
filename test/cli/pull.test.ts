import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { socketFor } from '../../src/agent/agent-places.ts'
import { type AgentAnswer, type AgentRequest, listen } from '../../src/agent/socket.ts'
import { pull as pullCommand } from '../../src/cli/pull.ts'
import { folder } from '../store/folder.ts'
import { IDLE } from './agent-status.ts'
import { inProcess } from './in-process.ts'

const digest = (of: string) => `sha256:${of.repeat(64)}` as const

/** `lazylayer pull IMAGE` with an agent that gives these answers in turn, and has fetched a megabyte more each time it says how it is. */
const pull = (image: string, answers: readonly AgentAnswer[], ...more: string[]) =>
  pullFrom((asked) => 5_000_000 + asked * 1_000_000, image, answers, ...more)

/** @param total what it has fetched, when it is asked for the nth time; never: it does not say so in time */
async function pullFrom(
  total: (asked: number) => number | Promise<never>,
  image: string,
  answers: readonly AgentAnswer[],
  ...more: string[]
) {
  const dir = await folder()
  const asked: AgentRequest[] = []
  let statuses = 0
  if (answers.length > 0) {
    const server = await listen(socketFor(join(dir, 'run'), join(dir, 'store')), async (request) => {
      if (request.op === 'status') {
        const fetched = await total(++statuses)
        return { ok: true, status: { ...IDLE, bytes: { ...IDLE.bytes, fetched } } }
      }
      asked.push(request)
      return answers[asked.length - 1] as AgentAnswer
    })
    onTestFinished(() => void server.close())
  }
  const env = { ...process.env, RUNTIME_DIRECTORY: join(dir, 'run') }
  return { ...(await inProcess(pullCommand, ['pull', image, '--root', join(dir, 'store'), ...more], env)), asked }
}

test('it says how many layers are listed, and from where on they are not, and why', async () => {
  const listed = [{ digest: digest('a'), id: 'a', by: 'index' as const }]
  const all = await pull('docker://r.example/app:1', [{ ok: true, outcome: { listed, left: [] } }])
  expect(all).toMatchObject({ code: 0, stdout: 'r.example/app:1: 1 of 1 layer listed (1 by index)\n' })
  expect(all.asked).toEqual([{ op: 'list', reference: 'r.example/app:1', prove: 'needed' }])
  const left = [digest('b'), digest('c')]
  const some = await pull('r.example/app:1', [{ ok: true, outcome: { listed, left, why: 'it is not lazy' } }])
  expect(some).toMatchObject({
    code: 1,
    stdout: `r.example/app:1: 1 of 3 layers listed (1 by index)\n  from ${left[0]} on they are the engine's to pull: it is not lazy\n`,
  })
})

test('it says what the layers are listed by, since older engines find only those by DiffID', async () => {
  const layer = (name: string, by: 'diffid' | 'index') => ({ digest: digest(name), id: name, by })
  const check = async (listed: readonly ReturnType<typeof layer>[], said: string) =>
    expect((await pull('r.example/app:1', [{ ok: true, outcome: { listed, left: [] } }])).stdout).toBe(
      `r.example/app:1: ${said}\n`,
    )
  await check(
    [layer('a', 'index'), layer('b', 'diffid'), layer('c', 'index')],
    '3 of 3 layers listed (1 by DiffID, 2 by index)',
  )
  await check([layer('a', 'diffid')], '1 of 1 layer listed (1 by DiffID)')
  await check([], '0 of 0 layers listed')
})

test('it goes on asking an agent that needs longer than an engine waits, and says how far it is, but not each time', async () => {
  const late = { ok: false, what: 'no progress for 2000 ms', late: true } as const
  const done = { ok: true, outcome: { listed: [], left: [] } } as const
  const { code, asked, stderr } = await pull('r.example/app:1', [late, late, done])
  expect({ code, asked: asked.length }).toEqual({ code: 0, asked: 3 })
  expect(stderr).toMatch(
    /^lazylayer: r\.example\/app:1: not listed yet after \d+ s; the agent fetched 1\.0 MB meanwhile\n$/,
  )
})

test('an agent that was started anew meanwhile counts anew', async () => {
  const late = { ok: false, what: 'no progress for 2000 ms', late: true } as const
  const done = { ok: true, outcome: { listed: [], left: [] } } as const
  const total = (asked: number) => (asked === 1 ? 9_000_000 : 2_000_000)
  const { stderr } = await pullFrom(total, 'r.example/app:1', [late, done])
  expect(stderr).toContain('; the agent fetched 2.0 MB meanwhile\n')
})

test('an agent that has too much to do to say what it fetched is asked all the same', async () => {
  const late = { ok: false, what: 'no progress for 2000 ms', late: true } as const
  const done = { ok: true, outcome: { listed: [], left: [] } } as const
  const { code, stderr } = await pullFrom(() => new Promise(() => {}), 'r.example/app:1', [late, done])
  expect({ code, stderr }).toEqual({
    code: 0,
    stderr: expect.stringMatching(/^lazylayer: r\.example\/app:1: not listed yet after \d+ s\n$/),
  })
})

test('what the agent knows of credentials is said only where they may be what is missing', async () => {
  const stderr = async (code: 'denied' | 'missing' | 'corrupt') =>
    (await pull('r.example/app:1', [{ ok: false, what: 'no', code }])).stderr
  for (const code of ['denied', 'missing'] as const)
    expect(await stderr(code)).toMatch(/Run lazylayer doctor .*its own credentials/)
  expect(await stderr('corrupt')).toMatch(/try: Run lazylayer doctor r\.example\/app:1\.\n$/)
})

test('with --prove all of the image is read whole', async () => {
  const { asked } = await pull('r.example/app:1', [{ ok: true, outcome: { listed: [], left: [] } }], '--prove')
  expect(asked).toEqual([{ op: 'list', reference: 'r.example/app:1', prove: 'all' }])
})

test('it fails where anything is left to the engine, with --prove and without', async () => {
  const left = { ok: true, outcome: { listed: [], left: [digest('b')], why: 'it is quarantined' } } as const
  expect((await pull('r.example/app:1', [left, left, left], '--prove')).code).toBe(1)
  expect((await pull('r.example/app:1', [left, left, left])).code).toBe(1)
})

test('what went wrong is told, with what to do', async () => {
  const refused = await pull('r.example/app:1', [{ ok: false, what: 'the registry refuses' }])
  expect(refused).toMatchObject({ code: 1, stdout: '' })
  expect(refused.stderr).toMatch(
    /^lazylayer: r\.example\/app:1 was not listed\n {2}why: the registry refuses\n {2}try: Run lazylayer doctor r\.example\/app:1\..*\n$/,
  )
  const advised = { ok: false, what: 'the registry refuses', fix: 'Log in as root.' } as const
  expect((await pull('r.example/app:1', [advised])).stderr).toMatch(
    /why: the registry refuses\n {2}try: Log in as root\.\n$/,
  )
  const nobody = await pull('r.example/app:1', [])
  expect(nobody.code).toBe(1)
  expect(nobody.stderr).toMatch(
    /no agent serves (.*)\n {2}try: Start one: lazylayer serve \1\. .*sudo lazylayer pull\.\n/,
  )
})

test('--creds is handed to the agent for that image, and a mistake in it is said without it', async () => {
  const outcome = { listed: [], left: [] }
  const { asked } = await pull('r.example/app:1', [{ ok: true, outcome }], '--creds', 'ada:x:y')
  const credentials = { username: 'ada', password: 'x:y' }
  expect(asked).toEqual([{ op: 'list', reference: 'r.example/app:1', prove: 'needed', credentials }])
  const wrong = await pull('r.example/app:1', [], '--creds', 'hunter2')
  expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining('--creds is not USER:PASSWORD') })
  expect(wrong.stderr).not.toContain('hunter2')
})
