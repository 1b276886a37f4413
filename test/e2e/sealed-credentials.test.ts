// What the auth helper handed over outlives the agent where --seal-credentials was given, and nowhere else.
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { socketFor } from '../../src/agent/places.ts'
import { ask } from '../../src/agent/socket.ts'
import { hostPlatform } from '../../src/image/manifest.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { type Agent, startAgent } from './agent.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

const TIMEOUT_MS = 300_000
const ADA = { username: 'ada', password: 'correct horse battery staple' }

suite('sealed credentials', lacking([]), () => {
  let work: WorkDirectory
  let registry: FakeRegistry
  let root: string

  beforeAll(async () => {
    work = await makeWorkDirectory()
    root = join(work.path, 'store')
    const shelf = new MemoryShelf()
    const { architecture } = hostPlatform()
    // another image each time: what was resolved once is known without the registry
    for (let i = 0; i < 10; i++) shelf.addImage([pattern(5000, i)], { architecture, tags: [`v${i}`] })
    registry = await startRegistry({ shelf, auth: { scheme: 'basic', ...ADA } })
    await writeFile(join(work.path, 'ca.crt'), registry.cert)
    await writeFile(join(work.path, 'auth.json'), '{}')
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  let tags = 0

  /** In one agent's life: what the registry answered when it was asked for an image. */
  async function live(flags: string[], credentials?: typeof ADA): Promise<{ statuses: number[]; log: string }> {
    const sockets = join(work.path, 'run')
    const env = {
      ...process.env,
      RUNTIME_DIRECTORY: sockets,
      STATE_DIRECTORY: join(work.path, 'state'),
      REGISTRY_AUTH_FILE: join(work.path, 'auth.json'),
    }
    const args = ['serve', root, '--cache', join(work.path, 'cache'), '--cert-dir', work.path, ...flags]
    const agent: Agent = await startAgent(work.path, root, args, { env, sockets })
    try {
      registry.seen.length = 0
      const reference = `${registry.host}/team/app:v${tags++}`
      await ask(socketFor(sockets, root), { op: 'list', reference, ...(credentials && { credentials }) })
      return { statuses: registry.seen.map((each) => each.status), log: agent.log() }
    } finally {
      await agent.stop()
    }
  }

  const sealed = () => readdir(join(work.path, 'cache/credentials')).catch(() => [])

  test('they are known to the next agent that is asked to, and to no other', { timeout: TIMEOUT_MS }, async () => {
    await live([], ADA)
    expect(await sealed()).toEqual([])
    expect(await readdir(work.path)).not.toContain('state')
    expect((await live([])).statuses).not.toContain(200)

    const told = await live(['--seal-credentials'], ADA)
    expect(told.statuses).toContain(200)
    expect((await live(['--seal-credentials'])).statuses).toContain(200)
    expect((await live([])).statuses).not.toContain(200)

    const names = await sealed()
    expect(names).toHaveLength(1)
    const path = join(work.path, 'cache/credentials', names[0] as string)
    expect(await readFile(path, 'latin1')).not.toMatch(/horse|ada|team/)
    for (const file of [path, join(work.path, 'state/credentials.key')]) {
      expect((await stat(file)).mode & 0o777).toBe(0o600)
    }
    expect(told.log).not.toMatch(/horse/)

    await writeFile(path, 'something else')
    const damaged = await live(['--seal-credentials'])
    expect(damaged.statuses).not.toContain(200)
    expect(damaged.log).toMatch(/sealed credentials .* are set aside/)
    expect(await sealed()).toEqual([`${names[0]}.damaged`])

    await live(['--seal-credentials'], ADA)
    await rm(join(work.path, 'state/credentials.key'))
    expect((await live(['--seal-credentials'])).statuses).not.toContain(200)
  })
})
