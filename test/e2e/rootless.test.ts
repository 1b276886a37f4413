// Without root: a plain user's mount by fusermount3, and a store served by the root of a user namespace, as `podman unshare` makes one.
// /dev/fuse is open to all here, as udev has it; that, and a fuse.conf of the test's own, is seen in a mount namespace of the test alone.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { statSync } from 'node:fs'
import { chmod, chown, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { pattern } from '../fake/image.ts'
import { type Agent, type As, gone, lazylayerAs, startAgent } from './agent.ts'
import { command, type Outcome, succeed } from './engines/command.ts'
import { findProgram, lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, mountsBelow, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

const TIMEOUT_MS = 300_000
/** `nobody`: every machine has it, and it owns nothing. */
const USER = 65_534
const BECOME_USER = ['setpriv', `--reuid=${USER}`, `--regid=${USER}`, '--clear-groups', '--']
const BIG = pattern(300_000, 3)

const reason =
  lacking(['fusermount3', 'setpriv', 'unshare', 'nsenter']) ??
  ((statSync(findProgram('fusermount3') ?? '/').mode & 0o4000) === 0 ? 'fusermount3 is not setuid' : undefined) ??
  ((statSync(process.execPath).mode & 0o1) === 0 ? 'a plain user may not run this Node' : undefined)
/** Some kernels and containers let only root make user namespaces. */
const namespaces =
  reason ??
  ((await command('setpriv', [...BECOME_USER.slice(1), 'unshare', '-Urm', 'true']).catch(() => undefined))?.code === 0
    ? undefined
    : 'plain users cannot make user namespaces')

/** One image in a registry, a home of the user's own, and one agent at a time. */
function scene() {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let agent: Agent | undefined
  let machine: ChildProcess

  beforeAll(async () => {
    work = await makeWorkDirectory()
    await chmod(work.path, 0o755)
    const layout = join(work.path, 'layout')
    const entries = [
      { path: 'small', type: 'file' as const, content: Buffer.from('small\n') },
      { path: 'big', type: 'file' as const, content: BIG },
      { path: 'secret', type: 'file' as const, content: Buffer.from('secret\n'), mode: 0o600 },
    ]
    await writeImage({ dir: layout, tag: 'image', layers: [{ kind: 'estargz', entries }] })
    registry = await serveLayout(layout, work.path)
    for (const name of ['home', 'home/run', 'home/mount']) {
      await mkdir(join(work.path, name), { mode: 0o700 })
      await chown(join(work.path, name), USER, USER)
    }
    const device = join(work.path, 'fuse')
    await succeed('mknod', ['-m', '666', device, 'c', '10', '229'])
    const script = `mount --bind ${device} /dev/fuse; echo ready; exec sleep infinity`
    machine = spawn('unshare', ['-m', 'sh', '-ec', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    const { stdout } = machine
    if (stdout === null) throw new TypeError('a pipe was asked for')
    await Promise.race([
      once(stdout, 'data'),
      once(machine, 'exit').then(() => Promise.reject(new Error('/dev/fuse cannot be mounted over'))),
    ])
  })
  afterEach(async () => {
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    machine?.kill('SIGKILL')
    await registry?.close()
    await work?.remove()
  })

  /** In the machine's mount namespace. */
  const inside = (...program: string[]) => ['nsenter', '-t', String(machine.pid), '-m', '--', ...program]
  const asUser = (...program: string[]) => inside(...BECOME_USER, ...program)
  const home = () => join(work.path, 'home')
  const sockets = () => join(home(), 'run/lazylayer')
  const as = (through: readonly string[]): As => ({
    through,
    env: { PATH: process.env.PATH, HOME: home(), XDG_RUNTIME_DIR: join(home(), 'run') },
    sockets: sockets(),
  })
  return {
    inside,
    asUser,
    /** Below `path`. */
    mounts: (path: string) => mountsBelow(path, machine.pid as number), // it was started
    home,
    sockets,
    as,
    work: () => work.path,
    dir: () => join(home(), 'mount'),
    image: () => `${registry.host}/image:image`,
    reach: () => ['--cert-dir', registry.certDir],
    async start(through: readonly string[], dir: string, args: readonly string[]): Promise<Agent> {
      agent = await startAgent(work.path, dir, [...args, '--cert-dir', registry.certDir], as(through))
      return agent
    },
  }
}

const run = async ([program = '', ...rest]: readonly string[]): Promise<Outcome> => await command(program, rest)

suite("a plain user's mount", reason, () => {
  const { inside, asUser, mounts, home, sockets, as, work, dir, image, reach, start } = scene()
  const mount = (...flags: string[]) => start(asUser(), dir(), ['mount', image(), dir(), ...flags])
  const catAsUser = (name: string) => run(asUser('cat', join(dir(), name)))

  test('is the fuse rung, by fusermount3, in directories of its own', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount()
    expect(running.line).toBe(`${image()} is mounted on ${dir()} (fuse, 1 layer)`)
    expect(await catAsUser('small')).toMatchObject({ code: 0, stdout: 'small\n' })
    const { stdout } = await run(asUser('sha256sum', join(dir(), 'big')))
    const wanted = await crypto.subtle.digest('SHA-256', Uint8Array.from(BIG))
    expect(stdout.split(' ')[0]).toBe(Buffer.from(wanted).toString('hex'))
    const status = await running.status()
    expect(status).toMatchObject({ mount: 'fuse', why: expect.stringContaining('Operation not permitted') })
    expect(running.log()).toBe('')
    expect(await readdir(join(home(), '.cache'))).toEqual(['lazylayer'])
    expect(await readdir(sockets())).toEqual([expect.stringMatching(/^[0-9a-f]+\.sock$/)])
  })

  test('is nobody else’s, not even root’s, and the image’s own modes hold', { timeout: TIMEOUT_MS }, async () => {
    await mount()
    expect((await run(inside('cat', join(dir(), 'small')))).stderr).toContain('Permission denied')
    // root's in the image, and this user is not root
    expect((await catAsUser('secret')).stderr).toContain('Permission denied')
  })

  test('is open to others where fuse.conf says so', { timeout: TIMEOUT_MS }, async () => {
    const configuration = join(work(), 'fuse.conf')
    await writeFile(configuration, 'user_allow_other\n', { mode: 0o644 })
    expect((await run(inside('mount', '--bind', configuration, '/etc/fuse.conf'))).code).toBe(0)
    try {
      await mount()
      expect(await run(inside('cat', join(dir(), 'secret')))).toMatchObject({ code: 0, stdout: 'secret\n' })
    } finally {
      await run(inside('umount', '/etc/fuse.conf'))
    }
  })

  test('ends by umount, and by SIGTERM, and leaves nothing', { timeout: TIMEOUT_MS }, async () => {
    const first = await mount()
    expect(await lazylayerAs(as(asUser()), 'umount', dir())).toMatchObject({ code: 0, stdout: '', stderr: '' })
    expect(await first.ended).toBe(0)
    const second = await mount()
    expect(await mounts(home())).toEqual([dir()])
    expect(await second.stop()).toBe(0)
    expect(second.log()).toBe('')
    expect(await mounts(home())).toEqual([])
    expect(await readdir(sockets())).toEqual([])
  })

  test('that is busy is not unmounted by umount, and detached by SIGTERM', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount()
    const [program = '', ...rest] = asUser('sh', '-c', `cd ${dir()} && echo there && exec sleep 60`)
    const user = spawn(program, rest, { stdio: ['ignore', 'pipe', 'ignore'] })
    try {
      await once(user.stdout, 'data')
      const refused = await lazylayerAs(as(asUser()), 'umount', dir())
      expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('is busy') })
      expect(await catAsUser('small')).toMatchObject({ stdout: 'small\n' })
      expect(await running.stop()).toBe(0)
      expect(running.log()).toContain(`${dir()} is busy: detached`)
      expect(await mounts(home())).toEqual([])
    } finally {
      user.kill('SIGKILL')
    }
  })

  test('goes with an agent that is killed', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount()
    process.kill(running.pid, 'SIGKILL')
    expect(await running.ended).toBe(137)
    expect(await mounts(home())).toEqual([])
  })

  test('that is dead is detached at the next start', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount()
    // the keeper first, so that nobody detaches
    const keeper = Number((await readFile(`/proc/${running.pid}/stat`, 'utf8')).split(' ')[3])
    process.kill(keeper, 'SIGKILL')
    process.kill(running.pid, 'SIGKILL')
    await running.ended
    await gone(running.pid)
    expect(await mounts(home())).toEqual([dir()])
    const next = await mount()
    expect(next.log()).toContain('detaching a dead mount')
    expect(await catAsUser('small')).toMatchObject({ stdout: 'small\n' })
  })

  test('goes by fuse-native as well', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount('--mount', 'portable')
    expect(running.line).toContain('(portable, 1 layer)')
    expect(await catAsUser('small')).toMatchObject({ stdout: 'small\n' })
    expect(await running.stop()).toBe(0)
    expect(await mounts(home())).toEqual([])
  })

  test('without fusermount3 is an error that says what to do', { timeout: TIMEOUT_MS }, async () => {
    const user = as(inside('env', `PATH=${home()}`, findProgram('setpriv') as string, ...BECOME_USER.slice(1)))
    const { code, stderr } = await lazylayerAs(user, 'mount', image(), dir(), ...reach(), '--mount', 'fuse')
    expect(code).toBe(1)
    expect(stderr).toContain('fusermount3 is not installed')
    expect(stderr).toContain('package fuse3')
  })

  test('is no store: the error says who may serve one', { timeout: TIMEOUT_MS }, async () => {
    const { code, stderr } = await lazylayerAs(as(asUser()), 'serve', ...reach())
    expect(code).toBe(1)
    expect(stderr).toContain('.local/share/lazylayer/store cannot be mounted on')
    expect(stderr).toContain('podman unshare lazylayer')
  })

  test('on a directory of somebody else is an error with the reason', { timeout: TIMEOUT_MS }, async () => {
    const theirs = join(work(), 'theirs')
    await mkdir(theirs)
    const { code, stderr } = await lazylayerAs(as(asUser()), 'mount', image(), theirs, ...reach())
    expect(code).toBe(1)
    expect(stderr).toContain('user has no write access to mountpoint')
    expect(await mounts(theirs)).toEqual([])
  })
})

suite('root of a user namespace', namespaces, () => {
  const { asUser, mounts, home, as, dir, image, reach, start } = scene()
  const asRoot = () => asUser('unshare', '-Urm', '--')
  const catBeside = (agent: Agent, path: string) =>
    run(['nsenter', '-t', String(agent.pid), '-U', '-m', '--', 'cat', path])

  test('serves a store by the fuse rung, in its own directories, and says why not by EROFS', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const root = join(home(), '.local/share/lazylayer/store')
    const running = await start(asRoot(), root, ['serve', '--diffid', 'claimed'])
    expect(running.line).toBe(`serving ${root}/layers (fuse, --diffid claimed)`)
    const status = await running.status()
    expect(status).toMatchObject({ mount: 'fuse', why: expect.stringContaining('Operation not permitted') })
    const inspected = await lazylayerAs(as([]), 'inspect', image(), ...reach(), '--format', 'json')
    const { layers } = JSON.parse(inspected.stdout)
    const reference = join(root, 'layers', Buffer.from(image()).toString('base64'))
    const path = join(reference, layers[0].digest, 'diff/small')
    expect(await catBeside(running, path)).toMatchObject({ code: 0, stdout: 'small\n' })
    // nobody else's, in the namespace and outside, mounted or not
    for (const each of [root, dirname(root)]) expect((await stat(each)).mode & 0o777).toBe(0o700)
    const seen = await run(['nsenter', '-t', String(running.pid), '-U', '-m', '--', 'stat', '-c', '%a', root])
    expect(seen.stdout).toBe('700\n')
    // its mounts are its namespace's
    expect(await mounts(home())).toEqual([])
    expect(await running.stop()).toBe(0)
  })

  test('has the credentials of its user: outside of the namespace it is no root', { timeout: TIMEOUT_MS }, async () => {
    const places = new URL('../../src/registry/places.ts', import.meta.url).href
    const script = `import { systemPlaces } from '${places}'; console.log(systemPlaces().uid, process.getuid())`
    const said = await run([...asRoot(), process.execPath, '--input-type=module', '-e', script])
    expect(said).toMatchObject({ code: 0, stdout: `${USER} 0\n` })
  })

  test('mounts an image by itself, as the root that its files are of', { timeout: TIMEOUT_MS }, async () => {
    const running = await start(asRoot(), dir(), ['mount', image(), dir()])
    expect(running.line).toBe(`${image()} is mounted on ${dir()} (fuse, 1 layer)`)
    expect(await catBeside(running, join(dir(), 'secret'))).toMatchObject({ code: 0, stdout: 'secret\n' })
  })

  test('is ended by its user from outside', { timeout: TIMEOUT_MS }, async () => {
    const running = await start(asRoot(), dir(), ['mount', image(), dir()])
    expect(await lazylayerAs(as(asUser()), 'umount', dir())).toMatchObject({ code: 0, stderr: '' })
    expect(await running.ended).toBe(0)
  })
})
