import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readdir, realpath, stat, symlink, writeFile } from 'node:fs/promises'
import { createConnection, createServer, type Server, type Socket } from 'node:net'
import { basename, join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { socketFor } from '../../src/agent/agent-places.ts'
import { type AgentAnswer, type AgentRequest, ask, askAt, listen, listSockets } from '../../src/agent/socket.ts'
import { Failure } from '../../src/errors.ts'
import { folder } from '../store/folder.ts'

const yes = async (): Promise<AgentAnswer> => ({ ok: true })

async function serve(path: string, answer: (request: AgentRequest) => Promise<AgentAnswer> = yes): Promise<Server> {
  const server = await listen(path, answer)
  onTestFinished(() => void server.close())
  return server
}

/** What comes back for raw bytes, until the other side ends; `undefined` when it breaks off. */
function raw(path: string, bytes: string): Promise<string> {
  return new Promise((done) => {
    const connection = createConnection(path)
    let text = ''
    connection.setEncoding('utf8')
    connection.on('data', (piece: string) => {
      text += piece
    })
    connection.on('error', () => {}) // closed while we write
    connection.on('close', () => done(text))
    connection.write(bytes)
  })
}

test('a question is answered', async () => {
  const path = join(await folder(), 'run', 'a.sock')
  const asked: AgentRequest[] = []
  await serve(path, async (request) => {
    asked.push(request)
    return request.op === 'status' ? { ok: true } : { ok: false, what: 'it is busy' }
  })
  expect(await ask(path, { op: 'status' })).toEqual({ ok: true })
  expect(await ask(path, { op: 'unmount' })).toEqual({ ok: false, what: 'it is busy' })
  expect(asked).toEqual([{ op: 'status' }, { op: 'unmount' }])
})

test('a request to list is taken apart: a reference, and credentials where they are whole', async () => {
  const path = join(await folder(), 'a.sock')
  const asked: AgentRequest[] = []
  await serve(path, async (request) => {
    asked.push(request)
    return { ok: true }
  })
  const reference = 'r.example/app:1'
  const check = async (sent: object, credentials?: object) => {
    await raw(path, `${JSON.stringify({ op: 'list', reference, ...sent })}\n`)
    expect(asked.pop()).toEqual({ op: 'list', reference, ...(credentials && { credentials }) })
  }
  const none = { username: '', password: '', identityToken: '' }
  await check({})
  await check({ credentials: none })
  await check({ credentials: { ...none, username: 'ada', password: 'x' } }, { username: 'ada', password: 'x' })
  await check({ credentials: { ...none, identityToken: 't', username: 'ada' } }, { identityToken: 't' })
  for (const odd of [null, 7, 'ada:x', [], { username: 'ada' }, { username: 7, password: 'x' }])
    await check({ credentials: odd })
  for (const odd of ['{"op":"list"}', '{"op":"list","reference":7}', '{"op":"lists","reference":"a"}']) {
    expect(JSON.parse(await raw(path, `${odd}\n`))).toEqual({ ok: false, what: 'unknown request' })
  }
  expect(asked).toEqual([])
})

test('only its user can open the socket, whatever the umask; which is as before', async () => {
  const old = process.umask(0)
  onTestFinished(() => void process.umask(old))
  const dir = join(await folder(), 'run')
  await serve(join(dir, 'a.sock'))
  expect((await stat(join(dir, 'a.sock'))).mode & 0o777).toBe(0o600)
  expect((await stat(dir)).mode & 0o777).toBe(0o700)
  expect(process.umask(0)).toBe(0)
})

test('files that others make meanwhile have the modes they want', async () => {
  const dir = await folder()
  const old = process.umask(0o022)
  onTestFinished(() => void process.umask(old))
  const listening = listen(join(dir, 'a.sock'), yes)
  const making = Promise.all(Array.from({ length: 20 }, (_, i) => mkdir(join(dir, `d${i}`))))
  const server = await listening
  onTestFinished(() => void server.close())
  await making
  for (let i = 0; i < 20; i++) expect((await stat(join(dir, `d${i}`))).mode & 0o777).toBe(0o755)
})

test('a second agent is refused, and the first goes on', async () => {
  const path = join(await folder(), 'a.sock')
  await serve(path)
  await expect(listen(path, yes)).rejects.toMatchObject({ code: 'system', fix: expect.any(String) })
  expect(await ask(path, { op: 'status' })).toEqual({ ok: true })
})

test('a socket that a dead agent left behind is replaced', async () => {
  const dir = await folder()
  const path = join(dir, 'a.sock')
  await writeFile(path, '') // nobody listens at a file either
  await serve(path)
  expect(await ask(path, { op: 'status' })).toEqual({ ok: true })
})

test('an agent that hangs keeps its socket, also when as many wait at it as may', async () => {
  const path = join(await folder(), 'a.sock')
  const script = `require('node:net').createServer().listen({ path: ${JSON.stringify(path)}, backlog: 1 }, () => console.log('ready'))`
  const agent = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  const waiting: Socket[] = []
  onTestFinished(() => {
    for (const each of waiting) each.destroy()
    agent.kill('SIGKILL')
  })
  await once(agent.stdout, 'data')
  agent.kill('SIGSTOP')
  for (let refused = false; !refused; ) {
    const connection = createConnection(path)
    waiting.push(connection)
    refused = await once(connection, 'connect').then(
      () => false,
      (error) => error.code === 'EAGAIN',
    )
  }
  await expect(listen(path, yes)).rejects.toMatchObject({ message: 'an agent is already running there' })
  await expect(ask(path, { op: 'status' })).rejects.toMatchObject({
    code: 'timeout',
    message: `the agent at ${path} (process ${agent.pid}) is hung`,
    why: 'it is stopped, by a signal or a debugger',
    fix: expect.stringContaining(`kill -CONT ${agent.pid} lets it go on.`),
  })
})

test('where it cannot listen it says so', async () => {
  const path = join(await folder(), `${'long'.repeat(40)}.sock`)
  await expect(listen(path, yes)).rejects.toMatchObject({
    code: 'system',
    message: `cannot listen at ${path}`,
    why: expect.any(String),
  })
})

test.each([
  ['no JSON', 'hello\n'],
  ['no object', '5\n'],
  ['null', 'null\n'],
  ['no question', '{}\n'],
  ['an unknown question', '{"op":"format"}\n'],
  ['a question of another type', '{"op":["status"]}\n'],
])('%s is answered by a refusal', async (_, line) => {
  const path = join(await folder(), 'a.sock')
  const asked: AgentRequest[] = []
  await serve(path, async (request) => {
    asked.push(request)
    return { ok: true }
  })
  expect(JSON.parse(await raw(path, line))).toEqual({ ok: false, what: expect.any(String) })
  expect(asked).toEqual([])
})

test('a request that is too long is cut off, and not carried out', async () => {
  const path = join(await folder(), 'a.sock')
  const asked: AgentRequest[] = []
  await serve(path, async (request) => {
    asked.push(request)
    return { ok: true }
  })
  expect(await raw(path, `${' '.repeat(70_000)}{"op":"unmount"}\n`)).toBe('')
  expect(await raw(path, `{"op":"unmount"${' '.repeat(70_000)}}\n`)).toBe('')
  expect(asked).toEqual([])
  expect(await ask(path, { op: 'status' })).toEqual({ ok: true })
})

test('only the first line of a connection counts', async () => {
  const path = join(await folder(), 'a.sock')
  let asked = 0
  await serve(path, async () => {
    asked++
    return { ok: true }
  })
  expect(await raw(path, '{"op":"status"}\n{"op":"unmount"}\n')).toBe('{"ok":true}\n')
  expect(asked).toBe(1)
})

test('an answer that fails is a refusal with the whole reason', async () => {
  const path = join(await folder(), 'a.sock')
  await serve(path, () => Promise.reject(Failure.system('it cannot be unmounted', { why: 'no rights' })))
  expect(await ask(path, { op: 'unmount' })).toEqual({
    ok: false,
    what: 'it cannot be unmounted: no rights',
    code: 'system',
  })
})

test('a refusal carries what to do, as far as that is no novel', async () => {
  const dir = await folder()
  const answered = async (fix: string) => {
    const path = join(dir, `${fix.length}.sock`)
    await serve(path, () => Promise.reject(Failure.denied('no', { fix })))
    return await ask(path, { op: 'status' })
  }
  expect(await answered('Log in.')).toEqual({ ok: false, what: 'no', code: 'denied', fix: 'Log in.' })
  expect(await answered('x'.repeat(5000))).toEqual({ ok: false, what: 'no', code: 'denied', fix: 'x'.repeat(1000) })
})

test('where no agent is there is no answer', async () => {
  const dir = await folder()
  expect(await ask(join(dir, 'none.sock'), { op: 'status' })).toBeUndefined()
  const path = join(dir, 'dead.sock')
  const server = await listen(path, yes)
  await new Promise((done) => server.close(done)) // removes its socket
  expect(await ask(path, { op: 'status' })).toBeUndefined()
})

test('an agent that answers nonsense, or nothing, is unavailable', async () => {
  const dir = await folder()
  for (const [name, bytes] of [
    ['nonsense', 'what?\n'],
    ['nothing', ''],
  ] as const) {
    const path = join(dir, `${name}.sock`)
    const server = createServer((connection) => connection.end(bytes))
    onTestFinished(() => void server.close())
    await new Promise<void>((done) => server.listen(path, done))
    await expect(ask(path, { op: 'status' })).rejects.toMatchObject({ code: 'unavailable' })
  }
})

test("another user's agent is denied", async () => {
  const dir = await folder() // which only its owner may enter
  await serve(join(dir, 'a.sock'))
  await chmod(join(dir, 'a.sock'), 0)
  const isRoot = process.geteuid?.() === 0
  if (isRoot) process.seteuid?.(65_534) // root may ask everybody
  const asking = ask(join(dir, 'a.sock'), { op: 'status' })
  if (isRoot) process.seteuid?.(0)
  await expect(asking).rejects.toMatchObject({ code: 'denied', fix: expect.any(String) })
})

test('the agent of a directory is found through symlinks, too', async () => {
  const dir = await folder()
  const mounted = join(await realpath(dir), 'mounted')
  await mkdir(mounted)
  await symlink(mounted, join(dir, 'link'))
  const sockets = join(dir, 'sockets')
  await serve(socketFor(sockets, mounted))
  expect(await askAt(sockets, mounted, { op: 'status' })).toEqual({ ok: true })
  expect(await askAt(sockets, join(dir, 'link'), { op: 'status' })).toEqual({ ok: true })
  expect(await askAt(sockets, dir, { op: 'status' })).toBeUndefined()
  expect(await askAt(sockets, join(dir, 'nowhere'), { op: 'status' })).toBeUndefined()
})

test('sockets are listed, and nothing else', async () => {
  const dir = await folder()
  const own = socketFor(dir, '/a')
  await serve(own)
  await writeFile(`${own}.log`, '')
  await serve(join(dir, 'containerd.sock')) // where an engine asks
  expect(await listSockets(dir)).toEqual([own])
  expect(await listSockets(join(dir, 'nowhere'))).toEqual([])
  expect((await readdir(dir)).sort()).toEqual([basename(own), `${basename(own)}.log`, 'containerd.sock'].sort())
})
