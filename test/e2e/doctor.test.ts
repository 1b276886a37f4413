// doctor, explain and setup as a user starts them, on this machine as it is.

import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { execPath } from 'node:process'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { INSTALLED_COMMAND } from '../../packaging/bundle.ts'
import { socketFor } from '../../src/agent/agent-places.ts'
import { listen } from '../../src/agent/socket.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import { Failure } from '../../src/errors.ts'
import { hostPlatform } from '../../src/image/manifest.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { startRegistry } from '../fake/registry.ts'
import { type Agent, lazylayer, startAgent } from './agent.ts'
import { command } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

const TIMEOUT_MS = 300_000

interface Finding {
  name: string
  state: 'ok' | 'warning' | 'problem'
  found: string
  fix?: string
}

suite('doctor and explain', lacking([]), () => {
  let work: WorkDirectory
  let root: string

  beforeAll(async () => {
    work = await makeWorkDirectory()
    root = join(work.path, 'store')
    const entries = [{ path: 'a', type: 'file' as const, content: Buffer.from('a\n') }]
    await writeImage({
      dir: join(work.path, 'layout'),
      tag: 'mixed',
      layers: [
        { kind: 'estargz', entries },
        { kind: 'gzip', entries },
      ],
    })
  })
  afterAll(async () => {
    await work?.remove()
  })

  /** With a storage.conf of the test's own, and its cache. */
  async function run(conf: string | undefined, ...args: string[]) {
    return await runIn(join(work.path, 'run'), conf, ...args)
  }

  /** @param sockets where agents are looked for */
  async function runIn(sockets: string, conf: string | undefined, ...args: string[]) {
    const path = join(work.path, 'storage.conf')
    if (conf !== undefined) await writeFile(path, conf)
    const env = { ...process.env, RUNTIME_DIRECTORY: sockets, CONTAINERS_STORAGE_CONF: path }
    return await command(execPath, [INSTALLED_COMMAND, ...args], { env })
  }

  async function findings(conf: string, ...more: string[]): Promise<{ code: number; of: Map<string, Finding> }> {
    const flags = ['--root', root, '--cache', join(work.path, 'cache'), '--format', 'json']
    const { code, stdout } = await run(conf, 'doctor', ...flags, ...more)
    const all = JSON.parse(stdout) as Finding[]
    return { code, of: new Map(all.map((each) => [each.name, each])) }
  }

  const named = (layers: boolean) =>
    `[storage]\ndriver = "overlay"\n[storage.options]\nadditionalimagestores = ["${root}/${layers ? 'layers' : 'images'}"]\n`

  test('doctor finds a running agent, and that engines look into its store', { timeout: TIMEOUT_MS }, async () => {
    const agent: Agent = await startAgent(work.path, root, ['serve', root, '--cache', join(work.path, 'cache')])
    try {
      const { of } = await findings(named(false))
      expect(of.get('agent')).toMatchObject({ state: 'ok', found: expect.stringContaining(`process ${agent.pid}`) })
      expect(of.get('storage.conf')).toMatchObject({ state: 'ok', found: expect.stringContaining('image store') })
      expect(of.get('mounts')).toMatchObject({ state: 'ok' })
      expect(of.get('cache')).toMatchObject({ found: expect.stringContaining(join(work.path, 'cache')) })
      for (const name of ['node', 'native part', 'codecs', 'fuse']) expect(of.get(name)).toMatchObject({ state: 'ok' })
    } finally {
      await agent.stop()
    }
  })

  test('doctor finds the agent by a symlink to its directory, and its store under either name', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const agent = await startAgent(work.path, root, ['serve', root, '--cache', join(work.path, 'cache')])
    const link = join(work.path, 'link')
    await symlink(root, link)
    try {
      for (const conf of [named(false), named(false).replaceAll(root, link)]) {
        const { of } = await findings(conf, '--root', link)
        expect(of.get('agent')).toMatchObject({ state: 'ok', found: expect.stringContaining(`process ${agent.pid}`) })
        expect(of.get('storage.conf')).toMatchObject({ state: 'ok' })
        expect(of.get('propagation')?.found).not.toContain('nothing is mounted')
      }
    } finally {
      await agent.stop()
    }
  })

  test('doctor ends, with a line each, where the cache is on a mount that hangs', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const agent = await startAgent(work.path, root, ['serve', root, '--cache', join(work.path, 'cache')])
    try {
      process.kill(agent.pid, 'SIGSTOP')
      const cache = join(root, 'layers', 'cache')
      // nobody is asked, for that takes its time
      const flags = ['--cache', cache, '--root', '/nowhere', '--format', 'json']
      const { code, stdout } = await runIn(join(work.path, 'elsewhere'), '[storage]\n', 'doctor', ...flags)
      const of = new Map((JSON.parse(stdout) as Finding[]).map((each) => [each.name, each]))
      expect(of.get('cache')).toMatchObject({ state: 'problem', found: `${cache} does not answer` })
      expect(of.get('kernel')).toMatchObject({ found: expect.stringContaining(`${cache} does not answer`) })
      expect(of.has('registry')).toBe(true)
      expect(code).toBe(1)
    } finally {
      process.kill(agent.pid, 'SIGCONT')
      await agent.stop()
    }
  })

  test.each<[string, (hung: string) => string[], RegExp]>([
    ['explain', (hung) => [`oci:${work.path}/layout:mixed`, '--cache', join(hung, 'cache')], /cache does not answer/],
    ['setup', (hung) => ['podman', '--root', hung], /has no store that podman/],
  ])('%s ends where what it looks at is on a mount that hangs', { timeout: TIMEOUT_MS }, async (name, args, said) => {
    const agent = await startAgent(work.path, root, ['serve', root, '--cache', join(work.path, 'cache')])
    const bin = join(work.path, `bin-${name}`)
    await mkdir(bin)
    await writeFile(join(bin, 'podman'), '#!/bin/sh\necho podman version 5.4.2\n', { mode: 0o755 })
    try {
      process.kill(agent.pid, 'SIGSTOP')
      const env = {
        PATH: `${bin}:/usr/bin:/bin`,
        RUNTIME_DIRECTORY: join(work.path, 'elsewhere'),
        CONTAINERS_STORAGE_CONF: join(work.path, 'hung.conf'),
      }
      const { code, stderr } = await command(execPath, [INSTALLED_COMMAND, name, ...args(join(root, 'layers'))], {
        env,
      })
      expect(stderr).toMatch(said)
      expect(code).toBe(name === 'explain' ? 0 : 1)
    } finally {
      process.kill(agent.pid, 'SIGCONT')
      await agent.stop()
    }
  })

  test('an agent that answers with an error is not taken for none', { timeout: TIMEOUT_MS }, async () => {
    const server = await listen(socketFor(join(work.path, 'run'), root), () =>
      Promise.reject(Failure.system('the mount table cannot be read')),
    )
    try {
      expect((await findings(named(false))).of.get('agent')).toMatchObject({
        state: 'problem',
        found: expect.stringContaining('.sock: the mount table cannot be read'),
      })
    } finally {
      server.close()
    }
  })

  test('doctor ends with 1 where it finds a problem, and with 0 where it does not', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const wrong = await findings(named(true))
    expect(wrong.code).toBe(1)
    expect(wrong.of.get('storage.conf')).toMatchObject({
      state: 'problem',
      found: expect.stringContaining('is not the image store'),
      fix: expect.stringContaining(`${root}/images`),
    })
    const right = await findings(named(false))
    const problems = [...right.of.values()].filter((each) => each.state === 'problem')
    expect(right.code).toBe(problems.length === 0 ? 0 : 1)
    expect(right.of.get('storage.conf')).toMatchObject({ state: 'ok' })
    expect(right.of.get('agent')).toMatchObject({ state: 'warning', fix: `Run lazylayer serve ${root}.` })
  })

  test('doctor has a line a check, and one with the sums', { timeout: TIMEOUT_MS }, async () => {
    const { stdout } = await run(named(false), 'doctor', '--root', root, '--cache', join(work.path, 'cache'))
    const lines = stdout.trimEnd().split('\n')
    for (const line of lines.slice(0, -1)) expect(line).toMatch(/^(ok|warning|problem) +[a-z]/)
    expect(lines.at(-1)).toMatch(/^\d+ problems?, \d+ warnings?$/)
  })

  test('doctor tries the registry of an image, and says what to do; without an image it asks none', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const shelf = new MemoryShelf()
    shelf.addImage([pattern(5000)], { architecture: hostPlatform().architecture, tags: ['v1'] })
    const registry = await startRegistry({ shelf, auth: { scheme: 'basic', username: 'ada', password: 'x' } })
    try {
      const certDir = join(work.path, 'certs')
      await mkdir(certDir)
      await writeFile(join(certDir, 'ca.crt'), registry.cert)
      const about = async (...flags: string[]) => {
        const found = await findings(named(false), `${registry.host}/team/app:v1`, ...flags)
        return { ...found, registry: found.of.get('registry') }
      }
      const none = await findings(named(false))
      expect(none.of.get('registry')).toMatchObject({ state: 'ok', found: expect.stringContaining('none was asked') })
      expect(registry.seen).toEqual([])
      const trusted = ['--cert-dir', certDir]
      expect((await about(...trusted, '--creds', 'ada:x')).registry).toEqual({
        name: 'registry',
        state: 'ok',
        found: `${registry.host}/team/app: HTTP/2, its certificate is trusted, takes the credentials, ranges are honoured`,
      })
      const refused = await about(...trusted, '--creds', 'ada:hunter2')
      expect(refused).toMatchObject({ code: 1, registry: { state: 'problem', fix: expect.stringContaining('Log in') } })
      expect(JSON.stringify([...refused.of])).not.toContain('hunter2')
      expect((await about()).registry).toMatchObject({ state: 'problem', fix: expect.stringContaining('ca.crt') })
      registry.faults = [{ match: /blobs/, ignoreRange: true }]
      expect((await about(...trusted, '--creds', 'ada:x')).registry).toMatchObject({
        state: 'problem',
        found: expect.stringContaining('ranges are ignored'),
      })
    } finally {
      await registry.close()
    }
  })

  test('a mount whose agent was killed with its keeper is found dead', { timeout: TIMEOUT_MS }, async () => {
    const agent = await startAgent(work.path, root, ['serve', root, '--cache', join(work.path, 'cache')])
    const keeper = Number((await readFile(`/proc/${agent.pid}/stat`, 'utf8')).split(' ')[3])
    process.kill(keeper, 'SIGKILL')
    process.kill(agent.pid, 'SIGKILL')
    await agent.ended
    try {
      let found = await findings(named(false))
      // the kernel ends the connection when the last descriptor is closed, some milliseconds after the process
      for (let i = 0; i < 20 && found.of.get('mounts')?.state === 'ok'; i++) found = await findings(named(false))
      expect(found.of.get('mounts')).toMatchObject({ state: 'problem', found: expect.stringContaining(root) })
      expect(found.of.get('storage.conf')).toMatchObject({ state: 'problem', found: expect.stringContaining('dead') })
    } finally {
      await lazylayer(work.path, 'umount', root)
    }
  })

  test('explain says how each kind of engine gets each layer', { timeout: TIMEOUT_MS }, async () => {
    const args = ['explain', `oci:${work.path}/layout:mixed`, '--cache', join(work.path, 'cache')]
    const { code, stdout } = await run(undefined, ...args)
    expect(code).toBe(0)
    expect(stdout).toMatch(/^[0-9a-f]{12} .* estargz .* pulled +layers \(index\) +images \(index\)$/m)
    expect(stdout).toMatch(/^[0-9a-f]{12} .* - .* pulled +pulled +pulled$/m)
    const json = JSON.parse((await run(undefined, ...args, '--format', 'json', '--diffid', 'claimed')).stdout)
    expect(json.layers[0]).toMatchObject({
      format: 'estargz',
      rung: json.rung,
      ways: {
        layer: { door: 'layers', identity: 'claimed', lazy: true },
        index: { door: 'layers', identity: 'index', lazy: true },
        image: { door: 'images', identity: 'claimed', lazy: true },
      },
    })
    expect(json.layers[1].ways.image).toMatchObject({
      why: expect.stringContaining('plain gzip'),
      fix: expect.any(String),
    })
  })

  test('setup shows a diff that is what it then does, and undo undoes it', { timeout: TIMEOUT_MS }, async () => {
    await mkdir(join(root, 'layers'), { recursive: true })
    await mkdir(join(root, 'images'), { recursive: true })
    const conf = '# mine\n[storage]\ndriver = "overlay"\n\n[storage.options]\n# stores\nadditionalimagestores = [\n]\n'
    const podman = join(work.path, 'bin')
    await mkdir(podman)
    await writeFile(join(podman, 'podman'), '#!/bin/sh\necho podman version 5.4.2\n', { mode: 0o755 })
    const path = join(work.path, 'setup.conf')
    await writeFile(path, conf)
    const env = {
      PATH: `${podman}:/usr/bin:/bin`,
      HOME: work.path,
      XDG_CONFIG_HOME: join(work.path, 'config'),
      CONTAINERS_STORAGE_CONF: path,
    }
    // as a user, so that the drop-ins are the user's
    const asUser = (...args: string[]) => {
      const script = 'process.getuid = () => 1000'
      const node = [`--import=data:text/javascript,${encodeURIComponent(script)}`, INSTALLED_COMMAND]
      return command(execPath, [...node, 'setup', 'podman', '--root', root, ...args], { env })
    }
    const shown = await asUser('--dry-run')
    expect(shown.code).toBe(0)
    expect(await readFile(path, 'utf8')).toBe(conf)
    await writeFile(join(work.path, 'setup.diff'), shown.stdout)
    const done = await asUser()
    expect(done.stdout).toContain(`wrote ${path}\n`)
    const text = await readFile(path, 'utf8')
    expect(text).toBe(
      conf
        .replace('[storage.options]\n', `[storage.options]\nadditionallayerstores = ["${root}/layers:ref"]\n`)
        .replace('[\n]', `[\n  "${root}/images",\n]`),
    )
    for (const line of text.split('\n')) {
      if (line !== '' && !conf.includes(line)) expect(shown.stdout).toContain(`\n+${line}\n`)
    }
    expect((await asUser()).stdout).toBe('nothing to change\n')
    expect((await asUser('--undo')).code).toBe(0)
    expect(await readFile(path, 'utf8')).toBe(conf)
  })
})
