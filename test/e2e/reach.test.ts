// Registries behind what stands before them in companies: a forward proxy, and a cache.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { layoutShelf } from '../../src/build/registry.ts'
import { type Auth, startRegistry } from '../fake/registry.ts'
import { lazylayerAs, startAgent } from './agent.ts'
import { command } from './engines/command.ts'
import { lacking, REGISTRY_PROGRAMS } from './engines/needs.ts'
import { PROXY_PROGRAMS, startTinyProxy, type TinyProxy } from './engines/proxy.ts'
import { type DockerRegistry, startDockerRegistry } from './engines/registry.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

const TIMEOUT_MS = 300_000
const ADA = { username: 'ada', password: 'hunter2' }
const LOGIN = 'worker:s3cret'
/** Beyond what a server that ignores ranges is read through for. */
const LARGE = Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 2_654_435_761) >>> 24)

async function pushImage(work: WorkDirectory, registry: DockerRegistry): Promise<void> {
  const layout = join(work.path, 'layout')
  const entries = [
    { path: 'hello', type: 'file' as const, content: Buffer.from('hello\n') },
    { path: 'large', type: 'file' as const, content: LARGE },
    { path: 'last', type: 'file' as const, content: Buffer.from('last\n') },
  ]
  await writeImage({ dir: layout, tag: 'v1', layers: [{ kind: 'estargz', entries }] })
  await registry.pushLayout(layout, 'v1', 'team/app')
}

/** inspect, cat, mount and serve with pull: what a user does with an image. */
async function use(
  work: WorkDirectory,
  image: string,
  env: NodeJS.ProcessEnv,
  flags: readonly string[],
): Promise<void> {
  const ran = async (...args: string[]) => {
    const { code, stdout, stderr } = await lazylayerAs({ env }, ...args)
    expect({ code, stderr }).toMatchObject({ code: 0 })
    return stdout
  }
  expect(await ran('inspect', image, ...flags)).toContain(image)
  const cache = ['--cache', join(work.path, 'cache')]
  expect(await ran('cat', image, 'hello', ...cache, ...flags)).toBe('hello\n')
  const dir = join(work.path, 'mounted')
  await mkdir(dir, { recursive: true })
  const mounted = await startAgent(work.path, dir, ['mount', image, dir, ...cache, ...flags], { env })
  try {
    expect(await readFile(join(dir, 'last'), 'utf8')).toBe('last\n')
    expect(new Uint8Array(await readFile(join(dir, 'large')))).toEqual(LARGE)
  } finally {
    await mounted.stop()
  }
}

async function usePulled(
  work: WorkDirectory,
  image: string,
  env: NodeJS.ProcessEnv,
  flags: readonly string[],
  login: string,
): Promise<void> {
  const root = join(work.path, 'store')
  const cache = ['--cache', join(work.path, 'served')]
  const served = await startAgent(work.path, root, ['serve', root, ...cache, ...flags], { env })
  try {
    const pulled = await lazylayerAs({ env }, 'pull', image, '--root', root, '--prove', '--creds', login)
    expect(pulled).toMatchObject({ code: 0, stdout: expect.stringContaining('1 of 1 layer listed (1 by DiffID)') })
  } finally {
    await served.stop()
  }
}

suite('through tinyproxy', lacking([...REGISTRY_PROGRAMS, ...PROXY_PROGRAMS]), () => {
  let work: WorkDirectory
  let registry: DockerRegistry
  let proxy: TinyProxy
  let image: string
  let name: string

  beforeAll(async () => {
    work = await makeWorkDirectory()
    registry = await startDockerRegistry({ dir: work.path, credentials: ADA })
    await pushImage(work, registry)
    proxy = await startTinyProxy(work.path, 'registry.example.com', LOGIN)
    name = registry.host.replace('127.0.0.1', 'registry.example.com')
    image = `${name}/team/app:v1`
  })
  afterAll(async () => {
    await proxy?.stop()
    await registry?.stop()
    await work?.remove()
  })

  const env = (more: Record<string, string>) => ({ ...process.env, RUNTIME_DIRECTORY: `${work.path}/run`, ...more })

  test('an image is inspected, read, mounted and pulled, with the credentials of each for each', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const through = env({ https_proxy: `http://${LOGIN}@${proxy.host}`, NO_PROXY: 'other.example.com,10.0.0.0/8' })
    const flags = ['--cert-dir', registry.certDir]
    const login = `${ADA.username}:${ADA.password}`
    await use(work, image, through, [...flags, '--creds', login])
    await usePulled(work, image, through, flags, login)
    expect(new Set(await proxy.log())).toEqual(new Set([`CONNECT ${name}`]))
    const requests = (await registry.log()).filter(({ userAgent }) => userAgent === 'lazylayer')
    expect(requests.length).toBeGreaterThan(0)
    expect(new Set(requests.map(({ protocol }) => protocol))).toEqual(new Set(['HTTP/2.0']))
  })

  test('who is not known to the proxy, and who goes past it, is told so', { timeout: TIMEOUT_MS }, async () => {
    const inspect = (more: Record<string, string>) =>
      lazylayerAs({ env: env(more) }, 'inspect', image, '--cert-dir', registry.certDir)
    const unknown = await inspect({ HTTPS_PROXY: `http://${proxy.host}` })
    expect(unknown).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^lazylayer: proxy 127\.0\.0\.1:\d+ refuses .* 407/),
    })
    expect(unknown.stderr).toContain('HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT')
    const past = await inspect({ HTTPS_PROXY: `http://${LOGIN}@${proxy.host}`, NO_PROXY: '.example.com' })
    expect(past).toMatchObject({ code: 1, stderr: expect.stringContaining('cannot talk to registry.example.com') })
    expect(past.stderr).not.toContain('s3cret')
  })
})

suite('behind the cache of nginx', lacking(REGISTRY_PROGRAMS), () => {
  let work: WorkDirectory
  let registry: DockerRegistry

  beforeAll(async () => {
    work = await makeWorkDirectory()
    registry = await startDockerRegistry({ dir: work.path, cache: true })
    await pushImage(work, registry)
  })
  afterAll(async () => {
    await registry?.stop()
    await work?.remove()
  })

  test('an image is inspected, read, mounted and pulled, while the cache is cold and when it is warm', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const env = { ...process.env, RUNTIME_DIRECTORY: `${work.path}/run` }
    const flags = ['--cert-dir', registry.certDir]
    const image = `${registry.host}/team/app:v1`
    for (const _ of ['cold', 'warm']) {
      await use(work, image, env, flags)
      await command('rm', ['-rf', join(work.path, 'cache')])
    }
    await usePulled(work, image, env, flags, 'any:body')
    const statuses = (await registry.log()).filter(({ kind }) => kind === 'blob').map(({ status }) => status)
    expect(statuses.every((status) => status === 200 || status === 206)).toBe(true)
  })
})

suite('a store that has credentials', lacking(['mount']), () => {
  test('shows them to the host that they are for, and to nobody whom somebody has it ask', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const work = await makeWorkDirectory()
    const layout = join(work.path, 'layout')
    const entries = [{ path: 'hello', type: 'file' as const, content: Buffer.from('hello\n') }]
    await writeImage({ dir: layout, tag: 'v1', layers: [{ kind: 'estargz', entries }] })
    const start = (auth: Auth) => startRegistry({ shelf: layoutShelf(layout), auth })
    const own = await start({ scheme: 'basic', ...ADA })
    const thieves = [
      await start({ scheme: 'basic', username: 'nobody', password: '' }),
      await start({ scheme: 'bearer', users: new Map() }),
      await start({ scheme: 'basic', username: 'nobody', password: '', strangers: 404 }),
    ]
    try {
      const file = join(work.path, 'creds.json')
      const auth = Buffer.from(`${ADA.username}:${ADA.password}`).toString('base64')
      await writeFile(file, JSON.stringify({ auths: { [own.host]: { auth } } }), { mode: 0o600 })
      const env = { ...process.env, RUNTIME_DIRECTORY: `${work.path}/run`, HOME: work.path }
      const root = join(work.path, 'store')
      const flags = ['--cache', join(work.path, 'cache'), '--tls-verify', 'false', '--creds-file', file]
      const agent = await startAgent(work.path, root, ['serve', root, ...flags], { env })
      try {
        const pull = (host: string) => lazylayerAs({ env }, 'pull', `${host}/team/app:v1`, '--root', root)
        expect(await pull(own.host)).toMatchObject({ code: 0, stdout: expect.stringContaining('1 of 1 layer listed') })
        for (const thief of thieves) {
          expect(await pull(thief.host)).toMatchObject({ code: 1 })
          expect(thief.seen.length).toBeGreaterThan(0)
          expect(thief.seen.map(({ authorization }) => authorization)).toEqual(thief.seen.map(() => undefined))
        }
      } finally {
        await agent.stop()
      }
    } finally {
      await Promise.all([own, ...thieves].map((each) => each.close()))
      await work.remove()
    }
  })
})
