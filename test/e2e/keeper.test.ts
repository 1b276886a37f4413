// Agents that die with their mounts in use: the keeper starts the next, which goes on, and programs notice nothing.
import { mkdir, open, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { keepersOf } from '../../src/mount/mount-namespaces.ts'
import { Random } from '../soak/random.ts'
import { type Agent, type As, gone, lazylayer, startAgent, successorOf } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, mountsBelow, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'
import { type VerifyingReader, verifyingReader } from './verifying-reader.ts'

const TIMEOUT_MS = 300_000
/** SIGKILLs of each kind of mount; `npm run soak` has more. */
const KILLS = Number(process.env.LAZYLAYER_KILLS ?? 4)
/** A package of an earlier version, made by test/soak/upgrade.sh; by default the version that is tried goes on after itself. */
const EARLIER = process.env.LAZYLAYER_UPGRADE_FROM
const PACKAGE = fileURLToPath(new URL('../..', import.meta.url))
const SERVICE_MANAGER = fileURLToPath(new URL('../fixtures/service-manager.py', import.meta.url))
const RUNGS = ['erofs', 'fuse'] as const
const NAMES = ['one', 'two']
const FILES = 24
/** Every fourth is larger than a chunk. */
const sizeOf = (i: number) => (i % 4 === 0 ? 700_000 : 9_000)

async function parentOf(pid: number): Promise<number> {
  return Number((await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ').at(-1)?.split(' ')[1])
}

suite('an agent that dies', lacking(['fusermount3', 'mount']), () => {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let plain: string
  /** Index digests of the image's layers, the upper one first. */
  let layers: string[]
  let agent: Agent | undefined
  const overlays: string[] = []
  const at = (...path: string[]) => join(work.path, ...path)
  const image = () => `${registry.host}/image:image`

  beforeAll(async () => {
    work = await makeWorkDirectory()
    plain = at('plain')
    const random = new Random(1)
    const made = []
    for (const name of NAMES) {
      await mkdir(join(plain, name), { recursive: true })
      const entries = []
      for (let i = 0; i < FILES; i++) {
        const content = Buffer.from(Array.from({ length: sizeOf(i) }, () => random.below(256)))
        await writeFile(join(plain, name, `f${i}`), content)
        entries.push({ path: `${name}/f${i}`, type: 'file' as const, content })
      }
      made.push({ kind: 'estargz' as const, entries: [{ path: name, type: 'dir' as const }, ...entries] })
    }
    const written = await writeImage({ dir: at('layout'), tag: 'image', layers: made })
    layers = written.layers.map((each) => each.annotations[TOC_DIGEST] as string).reverse()
    registry = await serveLayout(at('layout'), work.path)
  }, TIMEOUT_MS)
  afterEach(async () => {
    for (const each of overlays.splice(0)) await command('umount', ['--lazy', each])
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  async function start(
    dir: string,
    name: string,
    args: readonly string[],
    by: Pick<As, 'through' | 'launcher'> = {},
  ): Promise<Agent> {
    await mkdir(dir, { recursive: true })
    const keeping = args.includes('--keeper-patience') ? [] : ['--keeper-patience', '60']
    const reach = ['--cert-dir', registry.certDir, '--cache', at(`cache-${name}`)]
    const env = { ...process.env, RUNTIME_DIRECTORY: at('run') }
    agent = await startAgent(work.path, dir, [...args, ...keeping, ...reach], { ...by, env, sockets: at('run') })
    return agent
  }

  /** Kills agents, each after the one before has gone on and some was read. */
  async function killAgents(running: Agent, reader: VerifyingReader): Promise<void> {
    let { pid } = running
    for (let i = 0; i < KILLS; i++) {
      process.kill(pid, 'SIGKILL')
      const told = running.log().length
      pid = await successorOf(running, pid, TIMEOUT_MS).catch((error) => {
        throw new Error(`after ${i} kills: ${running.log().slice(told)}`, { cause: error })
      })
      await reader.more()
    }
  }

  const mount = (name: string, rung: string, ...more: string[]) =>
    start(at(name), name, ['mount', image(), at(name), '--mount', rung, ...more])

  /** What an engine does before it takes a layer. @returns its tree */
  async function look(root: string, layer: string): Promise<string> {
    const dir = join(root, 'layers', Buffer.from(image()).toString('base64'), layer)
    await succeed('stat', [join(dir, 'diff'), join(dir, 'info'), join(dir, 'blob')])
    await succeed('cat', [join(dir, 'info')])
    return join(dir, 'diff')
  }

  /** A container's root filesystem of all layers. */
  async function container(root: string, name: string): Promise<string> {
    const home = at(`container-${name}`)
    for (const each of ['upper', 'work', 'merged']) await mkdir(join(home, each), { recursive: true })
    const lower = await Promise.all(layers.map((each) => look(root, each)))
    const links = []
    for (const [i, each] of lower.entries()) {
      await succeed('ln', ['-s', each, join(home, `l${i}`)]) // colons of paths are separators
      links.push(`l${i}`)
    }
    const options = `lowerdir=${links.join(':')},upperdir=${home}/upper,workdir=${home}/work`
    await succeed('mount', ['-t', 'overlay', 'overlay', '-o', options, join(home, 'merged')], { cwd: home })
    overlays.push(join(home, 'merged'))
    return join(home, 'merged')
  }

  /** Resolves when no mount namespace of another test has copies of these mounts: it would keep them busy. */
  const keptByNobody = (dir: string) => expect.poll(() => keepersOf(dir)).toEqual([])

  /** Files of the session that mounts in the kernel are made of. */
  async function devicesBelow(dir: string): Promise<string[]> {
    return (await readdir(dir)).map((name) => join(dir, name))
  }

  for (const rung of RUNGS) {
    test(`programs that read an image go on (${rung})`, { timeout: TIMEOUT_MS + KILLS * 5_000 }, async () => {
      const name = `mount-${rung}`
      const running = await mount(name, rung)
      const hidden = rung === 'erofs' ? (await readdir(at('run'))).filter((each) => each.endsWith('.devices')) : []
      const devices = await Promise.all(hidden.map((each) => devicesBelow(at('run', each, '.devices'))))
      const before = await mountsBelow(work.path)
      const reader = await verifyingReader(at(name), plain, devices.flat())
      await killAgents(running, reader)
      const found = await reader.end()
      console.log(`mount, ${rung}: ${KILLS} kills, ${JSON.stringify(found)}`)
      expect(found).toMatchObject({ wrong: 0, errors: [] })
      // the very mounts of before
      expect(await mountsBelow(work.path)).toEqual(before)
      expect(await running.stop()).toBe(0)
      expect(await mountsBelow(at(name))).toEqual([])
    })

    test(`containers go on, and engines find what they found (${rung})`, {
      timeout: TIMEOUT_MS + KILLS * 5_000,
    }, async () => {
      const name = `store-${rung}`
      const root = at(name)
      const running = await start(root, name, ['serve', root, '--mount', rung])
      const merged = await container(root, name)
      const before = await mountsBelow(root)
      const devices = rung === 'erofs' ? await devicesBelow(join(root, '.devices')) : []
      const reader = await verifyingReader(merged, plain, devices)
      await killAgents(running, reader)
      const found = await reader.end()
      console.log(`serve, ${rung}: ${KILLS} kills, ${JSON.stringify(found)}`)
      expect(found).toMatchObject({ wrong: 0, errors: [] })
      expect(await mountsBelow(root)).toEqual(before)
      for (const each of layers) {
        expect(await readdir(await look(root, each))).toEqual(
          expect.arrayContaining([expect.stringMatching(/^(one|two)$/)]),
        )
      }
      expect(await mountsBelow(root)).toEqual(before)
      expect(await command('umount', [merged])).toMatchObject({ code: 0 })
      await keptByNobody(root)
      expect(await running.stop()).toBe(0)
      expect(running.log()).not.toContain('is busy')
      expect(await mountsBelow(root)).toEqual([])
    })
  }

  test('one that is stopped is replaced, and one that leaves in order is not', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount('stopped', 'fuse')
    process.kill(running.pid, 'SIGSTOP')
    expect(await readFile(at('stopped/one/f0'))).toHaveLength(sizeOf(0))
    await successorOf(running, running.pid, TIMEOUT_MS)
    expect(running.log()).toContain(`the agent (process ${running.pid}) hangs`)
    expect((await lazylayer(work.path, 'umount', at('stopped'))).code).toBe(0)
    expect(await running.ended).toBe(0)
  })

  /** This version in place of the one that is there, if one is. */
  async function install(installed: string): Promise<void> {
    for (const each of ['src', 'wasm', 'package.json', 'native'])
      await rm(join(installed, each), { recursive: true, force: true })
    for (const each of ['src', 'wasm', 'package.json']) await succeed('cp', ['-a', join(PACKAGE, each), installed])
    await mkdir(join(installed, 'native'))
    for (const each of ['lazylayer.node', 'lazylayer-keeper', 'lazylayer-auth-helper']) {
      await succeed('cp', ['-a', join(PACKAGE, 'native', each), join(installed, 'native')])
    }
  }

  test('another version goes on with a mount in use, or does not, and then the old one does', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const root = at('upgraded')
    const creds = at('creds.json')
    await writeFile(creds, '{}')
    const installed = at('package')
    if (EARLIER !== undefined) await succeed('cp', ['-a', EARLIER, installed])
    const by = EARLIER === undefined ? {} : { launcher: join(installed, 'src/cli/lazylayer.js') }
    const running = await start(root, 'upgraded', ['serve', root, '--creds-file', creds], by)
    const reader = await verifyingReader(await container(root, 'upgraded'), plain)
    await reader.more()
    if (EARLIER !== undefined) await install(installed)
    expect(await lazylayer(work.path, 'upgrade', root)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('goes on after'),
    })
    const { pid } = await running.status()
    expect(pid).not.toBe(running.pid)
    // one that does not start
    await writeFile(creds, 'no credentials')
    const refused = await lazylayer(work.path, 'upgrade', root)
    await writeFile(creds, '{}')
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('the old one does') })
    expect((await running.status()).pid).toBe(pid)
    expect(await reader.end()).toMatchObject({ wrong: 0, errors: [] })
  })

  test('a version that does not know the state of a newer one is refused, and containers read on', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const root = at('newer')
    const installed = at('newer-package')
    await mkdir(installed)
    await symlink(join(PACKAGE, 'node_modules'), join(installed, 'node_modules'))
    const stateFile = join(installed, 'src/mount/session-state.ts')
    /** What is installed is lazylayer as it is, but for what its state says. */
    const installVersion = async (version: number) => {
      await install(installed)
      const source = await readFile(stateFile, 'utf8')
      expect(source).toContain("'lazylayer 1'")
      await writeFile(stateFile, source.replace("'lazylayer 1'", `'lazylayer ${version}'`))
    }
    await installVersion(2)
    const running = await start(root, 'newer', ['serve', root], { launcher: join(installed, 'src/cli/lazylayer.js') })
    const reader = await verifyingReader(await container(root, 'newer'), plain)
    await installVersion(1)
    const refused = await lazylayer(work.path, 'upgrade', root)
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('the old one does') })
    expect(running.log()).toContain('its state says "lazylayer 2", and this version knows "lazylayer 1"')
    expect((await running.status()).pid).toBe(running.pid)
    await reader.more()
    await installVersion(2)
    expect(await lazylayer(work.path, 'upgrade', root)).toMatchObject({ code: 0 })
    await reader.more()
    expect(await reader.end()).toMatchObject({ wrong: 0, errors: [] })
  })

  test('what a service manager holds outlives the keeper, too', { timeout: TIMEOUT_MS }, async () => {
    const root = at('stored')
    const through = { through: ['python3', SERVICE_MANAGER] }
    const running = await start(root, 'stored', ['serve', root, '--on-exit', 'keep'], through)
    const manager = await parentOf(await parentOf(running.pid))
    const reader = await verifyingReader(await container(root, 'stored'), plain)
    const before = await mountsBelow(root)
    // killed with its keeper, then ended in order
    process.kill(manager, 'SIGUSR1')
    const pid = await successorOf(running, running.pid, TIMEOUT_MS)
    process.kill(manager, 'SIGUSR2')
    await successorOf(running, pid, TIMEOUT_MS)
    const found = await reader.end()
    expect(found).toMatchObject({ wrong: 0, errors: [] })
    expect(await mountsBelow(root)).toEqual(before)
    const told = (what: string) => running.log().split(`service manager: ${what}`).length - 1
    expect(told('READY=1')).toBe(3)
    expect(told('STOPPING=1')).toBe(1) // who is killed says nothing
    await expect.poll(() => told('WATCHDOG=1')).toBe(3)
    // nothing is mounted anew, so nobody has to start again
    expect((await lazylayer(work.path, 'umount', root)).code).not.toBe(0)
    for (const each of overlays.splice(0)) await succeed('umount', [each])
    await keptByNobody(root)
    expect(await lazylayer(work.path, 'umount', root)).toMatchObject({ code: 0, stderr: '' })
    expect(await running.ended).toBe(0)
    expect(await mountsBelow(root)).toEqual([])
  })

  test('where the numbers of its trees are lost nobody goes on with its mount, and all is there again', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const root = at('numbers')
    const running = await start(root, 'numbers', ['serve', root, '--mount', 'fuse'])
    const merged = await container(root, 'numbers')
    await rename(at('cache-numbers/slots'), at('slots'))
    process.kill(running.pid, 'SIGKILL')
    await successorOf(running, running.pid, TIMEOUT_MS)
    await expect(readdir(join(merged, 'one'))).rejects.toThrow(/ENOTCONN|ECONNABORTED|EIO/)
    expect(running.log()).toContain(
      'is detached, and programs that use it get errors: the numbers of its trees are lost',
    )
    const other = await container(root, 'numbers-2')
    expect(await readFile(join(other, 'two/f1'))).toEqual(await readFile(join(plain, 'two/f1')))
  })

  test('where the kernel gives no request twice nobody goes on, which is settled at once', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const root = at('once')
    const running = await start(root, 'once', ['serve', root], { through: ['env', 'LAZYLAYER_RESEND=0'] })
    await look(root, layers[0] as string)
    const refused = await lazylayer(work.path, 'upgrade', root)
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('the old one does') })
    expect((await running.status()).pid).toBe(running.pid)
    process.kill(running.pid, 'SIGKILL')
    expect(await running.ended).not.toBe(0)
    expect(await mountsBelow(root)).toEqual([])
  })

  test('without a successor its readers get errors, and its mounts are detached', { timeout: TIMEOUT_MS }, async () => {
    const root = at('left')
    const creds = at('left.json')
    await writeFile(creds, '{}')
    const args = ['serve', root, '--mount', 'fuse', '--creds-file', creds, '--keeper-patience', '1']
    const running = await start(root, 'left', args)
    const file = await open(join(await look(root, layers[0] as string), 'two/f4'))
    try {
      await writeFile(creds, 'no credentials') // no other can start
      process.kill(running.pid, 'SIGKILL')
      const read = file.read(Buffer.alloc(4096), 0, 4096, 0)
      await expect(read).rejects.toThrow(/EIO|ECONNABORTED|ENOTCONN/)
      expect(await running.ended).not.toBe(0)
      expect(await mountsBelow(at('left'))).toEqual([])
      expect(running.log()).toContain('nobody goes on with the mount')
    } finally {
      await file.close().catch(() => {}) // there is nobody to flush it to
      await gone(running.pid)
    }
  })
})
