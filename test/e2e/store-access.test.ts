// Who may look into a store of root's, and what whoever may gets from it: no file of a store that is closed, and of an open one none
// that gives a privilege; while containers of the same image have theirs.
import { chmod, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { ASK_BURST, ASK_EVERY_MS } from '../../src/stores/ask-limit.ts'
import { programEntries } from '../fixtures/programs.ts'
import { type Agent, lazylayer, startAgent } from './agent.ts'
import { type Door, type EngineStore, makeStore } from './engine-store.ts'
import { command, type Outcome, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { type Flavour, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'
import { mountsBelow } from './engines/work-directory.ts'

const TIMEOUT_MS = 300_000
const RUNGS = ['erofs', 'fuse'] as const
/** `nobody`: every machine has it, and it owns nothing. */
const NOBODY = 65_534
/** linux/capability.h: revision 2 and effective; CAP_DAC_OVERRIDE permitted; nothing inheritable. */
const MAY_READ_ALL = Buffer.from('0100000202000000000000000000000000000000', 'hex')

const asNobody = (...program: string[]): Promise<Outcome> =>
  command('setpriv', [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--', ...program])

suite('a store of root', lacking(['fusermount3', 'ldd']), () => {
  let store: EngineStore
  let work: string
  let root: string
  let layer: string
  let agent: Agent | undefined
  /** Who alone may read it is root. */
  let secret: string

  beforeAll(async () => {
    store = await makeStore(async (dir) => {
      const layout = join(dir, 'layout')
      const programs = await programEntries('/usr/bin/id', '/usr/bin/cat')
      const entries = [
        ...programs.filter(({ path }) => path !== '/usr/bin/id' && path !== '/usr/bin/cat'),
        ...programs.flatMap((each) => (each.path === '/usr/bin/id' ? [{ ...each, mode: 0o4755 }] : [])),
        ...programs.flatMap((each) =>
          each.path === '/usr/bin/cat' ? [{ ...each, xattrs: new Map([['security.capability', MAY_READ_ALL]]) }] : [],
        ),
        { path: 'secret', type: 'file' as const, mode: 0o600, content: Buffer.from('of the image\n') },
        { path: 'zero', type: 'char' as const, mode: 0o666, rdev: [1, 5] as const },
      ]
      const written = await writeImage({ dir: layout, tag: 'privileged', layers: [{ kind: 'estargz', entries }] })
      layer = written.layers[0]?.digest as string // it has one
      return { layout, tags: ['privileged'] }
    })
    ;({ root } = store)
    work = store.work.path
    await chmod(work, 0o755)
    secret = join(work, 'secret')
    await writeFile(secret, 'of the machine\n', { mode: 0o600 })
  }, TIMEOUT_MS)
  afterEach(async () => {
    await agent?.stop()
    agent = undefined
    await store.stop()
  })
  afterAll(() => store?.close())

  const listed = (at: string) =>
    lazylayer(work, 'pull', store.image, '--root', at).then((pulled) => expect(pulled).toMatchObject({ code: 0 }))

  /** The directories that hold the layer's files, as each door has them. */
  async function diffs(at: string): Promise<string[]> {
    const ids = JSON.parse(await readFile(join(at, 'images/overlay-layers/layers.json'), 'utf8')) as { id: string }[]
    const byReference = join(at, 'layers', Buffer.from(store.image).toString('base64'), layer, 'diff')
    return [byReference, ...ids.map(({ id }) => join(at, 'images/overlay', id, 'diff'))]
  }

  async function expectClosed(at: string, paths: readonly string[]): Promise<void> {
    for (const path of paths) {
      for (const program of [
        ['stat', path],
        ['ls', path],
        ['cat', path],
        ['sh', '-c', `cd ${path}`],
      ]) {
        const { code, stdout, stderr } = await asNobody(...program)
        expect({ program, code: code === 0, stdout }).toEqual({ program, code: false, stdout: '' })
        expect(stderr).toMatch(/Permission denied|can't cd/)
      }
    }
    expect((await asNobody('ls', at)).stderr).toContain('Permission denied')
  }

  for (const rung of RUNGS) {
    test(`is closed to everybody else, mounted and not, in a directory that is open to all (${rung})`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      await store.serve(`cache-${rung}`, '--mount', rung, '--diffid', 'claimed')
      await listed(root)
      const inside = await diffs(root)
      for (const diff of inside) expect(await readFile(join(diff, 'secret'), 'utf8')).toBe('of the image\n')
      const paths = ['layers', 'images', 'images/overlay-layers/layers.json', 'agent.sock', '.devices']
      const all = [...paths.map((each) => join(root, each)), ...inside, ...inside.map((each) => join(each, 'secret'))]
      await expectClosed(root, all)
      await store.stop()
      expect(await mountsBelow(root)).toEqual([])
      expect(await readdir(root)).toEqual(['images', 'layers'])
      await expectClosed(root, [join(root, 'layers'), join(root, 'images'), ...inside])
    })
  }

  test('closes what it makes above itself, and what an earlier version left open', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const made = join(work, 'made/for/store')
    agent = await startAgent(work, made, ['serve', made, '--cache', join(work, 'cache-made')])
    for (const each of ['made', 'made/for']) expect((await stat(join(work, each))).mode & 0o777).toBe(0o700)
    await agent.stop()

    const state = join(work, 'state')
    await mkdir(join(state, 'store'), { recursive: true, mode: 0o755 })
    const env = { ...process.env, RUNTIME_DIRECTORY: `${work}/run`, STATE_DIRECTORY: state }
    const at = join(state, 'store')
    agent = await startAgent(work, at, ['serve', '--cache', join(work, 'cache-state')], { env, sockets: `${work}/run` })
    expect((await stat(state)).mode & 0o777).toBe(0o700)
    expect((await asNobody('ls', state)).stderr).toContain('Permission denied')
  })

  test('is not made of a directory of somebody else', { timeout: TIMEOUT_MS }, async () => {
    const theirs = join(work, 'theirs')
    await mkdir(theirs)
    await succeed('chown', [String(NOBODY), theirs])
    const { code, stderr } = await lazylayer(work, 'serve', theirs, '--cache', join(work, 'cache-theirs'))
    expect(code).toBe(2)
    expect(stderr).toContain(`${theirs} belongs to user ${NOBODY}`)
    expect(await mountsBelow(theirs)).toEqual([])
  })

  for (const rung of RUNGS) {
    test(`that is open to others gives no privilege (${rung})`, { timeout: TIMEOUT_MS }, async () => {
      await store.serve(`cache-${rung}`, '--mount', rung, '--diffid', 'claimed', '--store-mode', '0755')
      await listed(root)
      const table = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')
      const options = table
        .map((line) => line.split(' '))
        .filter((each) => each[4] === root || each[4]?.startsWith(`${root}/`))
      expect(options.length).toBeGreaterThan(rung === 'erofs' ? 1 : 0)
      for (const each of options) expect(each[5]?.split(',')).toEqual(expect.arrayContaining(['nosuid', 'nodev']))
      for (const diff of await diffs(root)) {
        expect((await stat(join(diff, 'usr/bin/id'))).mode & 0o7777).toBe(0o4755)
        expect(await asNobody(join(diff, 'usr/bin/id'), '-u')).toMatchObject({ code: 0, stdout: `${NOBODY}\n` })
        for (const path of [secret, join(diff, 'secret'), join(diff, 'zero')]) {
          expect(await asNobody(join(diff, 'usr/bin/cat'), path)).toMatchObject({ code: 1, stdout: '' })
        }
      }
    })
  }

  test('that is open has registries asked for others at a stated rate, and for root always', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const served = await store.serve('cache-erofs', '--store-mode', '0755')
    const name = (i: number) => join(root, 'layers', Buffer.from(`${store.registry.host}/none:${i}`).toString('base64'))
    const started = performance.now()
    const looked = await asNobody('stat', '-c', '%F', ...Array.from({ length: 400 }, (_, i) => name(i)))
    const found = looked.stdout.split('\n').filter(Boolean).length
    expect(found).toBeGreaterThanOrEqual(ASK_BURST)
    expect(found).toBeLessThanOrEqual(ASK_BURST + 1 + (performance.now() - started) / ASK_EVERY_MS)
    expect(served.log().match(new RegExp(`user ${NOBODY} asks for too many layers`, 'g'))).toHaveLength(1)
    expect((await stat(name(399))).isDirectory()).toBe(true)
    expect((await stat(name(1_000))).isDirectory()).toBe(true)
  })

  test('that is to be open says what keeps others out', { timeout: TIMEOUT_MS }, async () => {
    const above = join(work, 'above')
    await mkdir(above, { mode: 0o700 })
    const at = join(above, 'store')
    agent = await startAgent(work, at, ['serve', at, '--cache', join(work, 'cache-above'), '--store-mode', '755'])
    expect(agent.log()).toContain(`${above} is closed to them`)
    expect((await stat(above)).mode & 0o777).toBe(0o700)
  })

  const engines: readonly { flavour: Flavour; version: string; doors: readonly Door[] }[] = [
    { flavour: 'debian12', version: '4.3.1', doors: ['layers', 'images'] },
    { flavour: 'trixie', version: '5.4.2', doors: ['layers', 'images'] },
    { flavour: 'sid', version: '5.8', doors: ['images'] },
  ]
  for (const { flavour, version, doors } of engines) {
    suite(`containers of Podman ${version}`, podmanLacks(flavour), () => {
      for (const rung of RUNGS) {
        for (const door of doors) {
          test(`Podman ${version}: set-user-ID programs and file capabilities work in containers (${door}, ${rung})`, {
            timeout: TIMEOUT_MS,
          }, async () => {
            await store.serve(`cache-${rung}`, '--mount', rung, '--diffid', 'claimed')
            await listed(root)
            await using podman = await store.startEngine(flavour, door)
            await store.registry.clear()
            await podman.succeed(['pull', '--quiet', store.image])
            // it is lazy: one blob, the config
            const blobs = (await store.registry.log()).filter(
              ({ kind, userAgent }) => kind === 'blob' && userAgent !== 'lazylayer',
            )
            expect(blobs).toHaveLength(1)
            const run = (user: string, ...program: string[]) =>
              podman.container('run', ['--rm', '--user', user, store.image, ...program])
            expect(await run('1000', '/usr/bin/id', '-u')).toMatchObject({ code: 0, stdout: '0\n' })
            expect(await run('1000', '/usr/bin/id', '-ru')).toMatchObject({ code: 0, stdout: '1000\n' })
            expect(await run('1000', '/usr/bin/cat', '/secret')).toMatchObject({ code: 0, stdout: 'of the image\n' })
            if (door === 'layers') return // mapped users cannot be had through it (idmap.test.ts)
            // mapped users reach what a container is made of by their own rights
            for (const each of ['', 'tmp', 'graph', 'run']) await chmod(join(podman.path, each), 0o755)
            const mapped = ['--uidmap', '0:100000:65536', '--gidmap', '0:100000:65536', '--user', '1000']
            const probe = await podman.container('run', ['--rm', ...mapped, store.image, '/usr/bin/id', '-u'])
            expect(probe).toMatchObject({ code: 0, stdout: '0\n' })
          })
        }
      }
    })
  }
})
