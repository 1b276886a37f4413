// The helper that engines run in every pull: whatever happens, it says nothing, fails nothing, and ends; and it finds its user's agent.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { type AgentAnswer, type AgentRequest, listen } from '../../src/agent/socket.ts'
import { folder } from '../store/folder.ts'
import { HELPER } from './agent.ts'
import { command } from './engines/command.ts'
import { lacking, program } from './engines/needs.ts'
import { suite } from './engines/suite.ts'

const CREDENTIALS = { username: 'ada', password: 'x', identityToken: '' }
const INPUT = JSON.stringify({ 'r.example/app:1': CREDENTIALS })
const SILENT = { code: 0, printed: '' }

/** Runs it as an engine does. @returns what it printed, its exit code, and how long it took */
async function run(root: string, input: string, env: NodeJS.ProcessEnv = {}) {
  const started = performance.now()
  const child = spawn(HELPER, [], { env: { LAZYLAYER_ROOT: root, ...env }, stdio: 'pipe' })
  let printed = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (printed += text))
  child.stdin.on('error', () => {}) // it need not read all of it
  child.stdin.end(input)
  const [code] = await once(child, 'close')
  return { code, printed, tookMs: performance.now() - started }
}

/** A root whose agent answers so. @param relative its symlink is, as that of a root which was moved may be */
async function rootWith(answer: (request: AgentRequest) => Promise<AgentAnswer>, relative = false): Promise<string> {
  const root = await folder()
  const server = await listen(join(root, 'run', 'a.sock'), answer)
  onTestFinished(() => void server.close())
  await symlink(relative ? 'run/a.sock' : join(root, 'run', 'a.sock'), join(root, 'agent.sock'))
  return root
}

test('it hands the reference and its credentials over, and ends when they were dealt with', async () => {
  const asked: AgentRequest[] = []
  let done = false
  const answer = async (request: AgentRequest): Promise<AgentAnswer> => {
    asked.push(request)
    await new Promise((wait) => setTimeout(wait, 200))
    done = true
    return { ok: true }
  }
  expect(await run(await rootWith(answer), INPUT)).toMatchObject(SILENT)
  expect(done).toBe(true)
  expect(asked).toEqual([{ op: 'list', reference: 'r.example/app:1', credentials: { username: 'ada', password: 'x' } }])
})

test('several references are asked for at once, and what their strings hold arrives as it was', async () => {
  const asked: AgentRequest[] = []
  let release = () => {}
  const all = new Promise<void>((done) => {
    release = done
  })
  const root = await rootWith(async (request) => {
    asked.push(request)
    if (asked.length === 3) release()
    await all
    return { ok: true }
  }, true)
  const secret = { username: 'é"\\\n\u{1f600}', password: '","op":"unmount' }
  const input = JSON.stringify({ 'r.example/a:1': secret, 'r.example/b:1': secret, 'r.example/c:1': secret }, null, 2)
  expect(await run(root, input)).toMatchObject(SILENT)
  const each = ['a', 'b', 'c'].map((name) => ({
    op: 'list',
    reference: `r.example/${name}:1`,
    credentials: secret,
  }))
  expect(asked).toHaveLength(each.length)
  expect(asked).toEqual(expect.arrayContaining(each))
})

test('it needs nothing else that is installed', async () => {
  let asked = 0
  const root = await rootWith(async () => {
    asked++
    return { ok: true }
  })
  expect(await run(root, INPUT, { PATH: '/nowhere' })).toMatchObject(SILENT)
  expect(asked).toBe(1)
})

test('an agent that refuses, breaks off or is gone fails nothing', async () => {
  const refusing = await rootWith(async () => ({ ok: false, what: 'no' }))
  expect(await run(refusing, INPUT)).toMatchObject(SILENT)
  const dead = await folder()
  await symlink('/nowhere/a.sock', join(dead, 'agent.sock'))
  expect(await run(dead, INPUT)).toMatchObject(SILENT)
  expect(await run(await folder(), INPUT)).toMatchObject(SILENT)
})

test('who listens there and is no agent fails nothing', async () => {
  for (const said of ['', '\0', '{"ok":', 'x'.repeat(4 << 20), '\n'.repeat(4 << 20)]) {
    const root = await folder()
    const server = createServer((connection) => {
      connection.on('error', () => {}) // it is hung up on
      connection.end(said)
    })
    server.listen(join(root, 's'))
    await once(server, 'listening')
    await symlink('s', join(root, 'agent.sock'))
    expect(await run(root, INPUT)).toMatchObject(SILENT)
    server.close()
  }
})

test('input that is none fails nothing, and asks nothing', async () => {
  const asked: AgentRequest[] = []
  const root = await rootWith(async (request) => {
    asked.push(request)
    return { ok: true }
  })
  const cut = INPUT.slice(0, -1)
  for (const input of ['', '{', 'null', '[]', '{}', '"x"', cut, `${INPUT}}`, '['.repeat(60_000), 'x'.repeat(1 << 20)]) {
    expect(await run(root, input)).toMatchObject(SILENT)
  }
  const tooMuch = JSON.stringify({ 'r.example/app:1': { ...CREDENTIALS, password: 'x'.repeat(60_000) } })
  expect(await run(root, tooMuch)).toMatchObject(SILENT)
  expect(asked).toEqual([])
})

test('an agent that hangs holds up a pull for its deadline and no longer', async () => {
  const root = await rootWith(() => new Promise(() => {}))
  const { tookMs, ...rest } = await run(root, INPUT)
  expect(rest).toEqual(SILENT)
  expect(tookMs).toBeGreaterThan(10_000)
})

suite('the auth helper', lacking(['setpriv', 'unshare']), () => {
  for (const namespace of [[], ['unshare', '--user', '--map-root-user']]) {
    test(`finds a plain user's agent ${namespace.length > 0 ? 'from a user namespace' : 'as that user'}`, async () => {
      const dir = await mkdtemp(join(tmpdir(), 'lazy-'))
      onTestFinished(() => rm(dir, { recursive: true }))
      await chmod(dir, 0o755)
      await mkdir(join(dir, 'lazylayer/store'), { recursive: true })
      await symlink(join(dir, 'socket'), join(dir, 'lazylayer/store/agent.sock'))
      const asked = new Promise<string>((done) => {
        const server = createServer((connection) => {
          connection.once('data', (text) => {
            done(text.toString())
            connection.end()
            server.close()
          })
        })
        server.listen({ path: join(dir, 'socket'), writableAll: true })
      })
      const input = '{"r.example/app:1": {"username": "", "password": "", "identityToken": ""}}'
      const user = ['--reuid', '12345', '--regid', '12345', '--clear-groups']
      const line = `echo '${input}' | ${HELPER}`
      const outcome = await command(program('setpriv'), [...user, ...namespace, 'sh', '-c', line], {
        env: { PATH: process.env.PATH, HOME: '/nowhere', XDG_DATA_HOME: dir },
      })
      expect(outcome).toEqual({ code: 0, stdout: '', stderr: '' })
      expect(JSON.parse(await asked)).toMatchObject({ op: 'list', reference: 'r.example/app:1' })
    })
  }
})
