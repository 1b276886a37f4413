// An agent that hangs, stopped by a signal with its mount in place: every command that meets it ends, and says so.
import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { INSTALLED_COMMAND } from '../../packaging/bundle.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import { type Agent, HELPER, startAgent } from './agent.ts'
import { command, type Outcome } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

/** On a machine with much else to do. */
const BOUND_MS = 60_000
const TIMEOUT_MS = 400_000

suite('an agent that hangs', lacking(['fusermount3']), () => {
  let work: WorkDirectory
  let image: string
  let store: Agent
  let other: Agent
  const at = (name: string) => join(work.path, name)

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const entries = [{ path: 'a', type: 'file' as const, content: Buffer.from('a\n') }]
    await writeImage({ dir: at('layout'), tag: 'image', layers: [{ kind: 'estargz', entries }] })
    image = `oci:${at('layout')}:image`
    await mkdir(at('mounted'))
    await symlink(at('store'), at('link'))
    store = await startAgent(work.path, at('store'), ['serve', at('store'), '--cache', at('cache')])
    other = await startAgent(work.path, at('mounted'), ['mount', image, at('mounted'), '--cache', at('cache')])
    process.kill(store.pid, 'SIGSTOP')
  }, TIMEOUT_MS)
  afterAll(async () => {
    if (store !== undefined) process.kill(store.pid, 'SIGCONT')
    await store?.stop()
    await other?.stop()
    await work?.remove()
  })

  /** @returns what it did, within its bound */
  const run = async (...args: string[]): Promise<Outcome> => {
    const env = { ...process.env, RUNTIME_DIRECTORY: at('run'), CONTAINERS_STORAGE_CONF: at('storage.conf') }
    return await command(process.execPath, [INSTALLED_COMMAND, ...args], { env, timeoutMs: BOUND_MS })
  }
  const message = () =>
    [
      `lazylayer: the agent of ${at('store')} (process ${store.pid}) is hung\n`,
      '  why: it is stopped, by a signal or a debugger\n',
      `  try: kill -CONT ${store.pid} lets it go on. Or kill -KILL ${store.pid} ends it, which detaches what it mounted; `,
      `then start it again on ${at('store')}.\n`,
    ].join('')

  // each waits for an answer, and none of them for another
  test.concurrent('status shows it, and the others', { timeout: TIMEOUT_MS }, async () => {
    const [{ code, stdout, stderr }, json] = await Promise.all([run('status'), run('status', '--format', 'json')])
    const lines = stdout.trimEnd().split('\n')
    expect({ code, stderr, lines: lines.length }).toEqual({ code: 1, stderr: message(), lines: 3 })
    expect(lines.find((line) => line.startsWith(`${at('store')} `))).toMatch(
      new RegExp(`^\\S+ +hung +(- +){6}${store.pid}$`),
    )
    expect(lines.find((line) => line.startsWith(`${at('mounted')} `))).toMatch(new RegExp(` ${other.pid}$`))
    expect({ code: json.code, stderr: json.stderr }).toEqual({ code: 1, stderr: message() })
    expect(JSON.parse(json.stdout)).toMatchObject([{ root: at('mounted') }])
  })

  test.concurrent('whoever asks for it by its directory hears of it', { timeout: TIMEOUT_MS }, async () => {
    const commands = [
      ['status', at('store')],
      ['umount', at('store')],
      ['pull', '--root', at('store'), image],
      ['serve', at('store'), '--cache', at('cache')],
      ['mount', image, at('store'), '--cache', at('cache')],
      ['mount', '--detach', image, at('store'), '--cache', at('cache')],
    ]
    const outcomes = await Promise.all(commands.map(async (args) => [args, await run(...args)]))
    expect(outcomes).toEqual(commands.map((args) => [args, { code: 1, stdout: '', stderr: message() }]))
  })

  test.concurrent('also by a symlink, or from elsewhere', { timeout: TIMEOUT_MS }, async () => {
    const commands = [
      ['status', at('link')],
      ['umount', at('link')],
      ['serve', at('link'), '--cache', at('cache')],
    ]
    for (const { code, stderr } of await Promise.all(commands.map((args) => run(...args)))) {
      expect(code, stderr).toBe(1)
      expect(stderr).toMatch(/is hung|does not answer|no agent serves|nothing of lazylayer/)
    }
  })

  test.concurrent('doctor tells of it, and explain ends', { timeout: TIMEOUT_MS }, async () => {
    const doctor = ['doctor', '--root', at('store'), '--cache', at('cache'), '--format', 'json']
    const [{ code, stdout }, explained] = await Promise.all([
      run(...doctor),
      run('explain', image, '--cache', at('cache')),
    ])
    const found = JSON.parse(stdout) as { name: string; state: string; found: string; fix?: string }[]
    const agent = found.find(({ name }) => name === 'agent')
    expect({ code, agent }).toMatchObject({ code: 1, agent: { state: 'problem' } })
    expect(agent?.found).toContain(`the agent of ${at('store')} (process ${store.pid}) is hung`)
    expect(agent?.fix).toContain(`kill -CONT ${store.pid}`)
    expect(explained).toMatchObject({ code: 0 })
  })

  test.concurrent('an engine that asks its helper goes on', { timeout: TIMEOUT_MS }, async () => {
    const line = `echo '{"registry.example.com/a:1": {}}' | exec ${HELPER}`
    const env = { LAZYLAYER_ROOT: at('store') }
    expect(await command('sh', ['-c', line], { env, timeoutMs: BOUND_MS })).toEqual({ code: 0, stdout: '', stderr: '' })
  })

  test('one that goes on is as before', { timeout: TIMEOUT_MS }, async () => {
    process.kill(store.pid, 'SIGCONT')
    await store.status()
    const { code, stdout } = await run('status', at('store'))
    expect({ code, row: stdout.includes(' store ') }).toEqual({ code: 0, row: true })
  })
})
