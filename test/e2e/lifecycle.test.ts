// The life of mounts as users and systemd see it: ready lines, ends in order and out of order, what stays behind (nothing).
import { spawn } from 'node:child_process'
import { mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { RUNGS, type Rung } from '../../src/mount/ladder.ts'
import { type Agent, gone, lazylayer, startAgent } from './agent.ts'
import { command } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, mountsBelow, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

const TIMEOUT_MS = 300_000
/** One layer that two images share, and one more each. */
const SHARED = [{ path: 'shared', type: 'file' as const, content: Buffer.alloc(300_000, 's') }]

for (const rung of RUNGS) suite(`the life of a mount (${rung})`, lacking(['fusermount3']), () => tests(rung))

function tests(rung: Rung): void {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let agent: Agent | undefined
  let dir: string

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const layout = join(work.path, 'layout')
    for (const tag of ['one', 'two']) {
      const own = [{ path: tag, type: 'file' as const, content: Buffer.from(`${tag}\n`) }]
      await writeImage({
        dir: layout,
        tag,
        layers: [
          { kind: 'estargz', entries: SHARED },
          { kind: 'estargz', entries: own },
        ],
      })
    }
    registry = await serveLayout(layout, work.path)
    dir = join(work.path, 'mount')
    await mkdir(dir)
  })
  afterEach(async () => {
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  const reach = (cache: string) => ['--cache', join(work.path, cache), '--cert-dir', registry.certDir]
  const flags = (cache: string) => [...reach(cache), '--mount', rung]
  const cat = async (path: string) => (await command('cat', [path])).stdout

  async function mount(tag = 'one', cache = 'cache', at = dir): Promise<Agent> {
    agent = await startAgent(work.path, at, ['mount', `${registry.host}/image:${tag}`, at, ...flags(cache)])
    return agent
  }

  test('SIGTERM unmounts, and nothing is left behind', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount()
    expect(running.line).toBe(`${registry.host}/image:one is mounted on ${dir} (${rung}, 2 layers)`)
    expect(await cat(join(dir, 'one'))).toBe('one\n')
    expect(await running.stop()).toBe(0)
    expect(await mountsBelow(dir)).toEqual([])
    expect(running.log()).toBe('')
    expect(await readdir(join(work.path, 'run'))).toEqual([])
  })

  test('set-user-ID programs of an image do not run as their owners', { timeout: TIMEOUT_MS }, async () => {
    await mount()
    const table = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')
    const options = table.find((line) => line.split(' ')[4] === dir)?.split(' ')[5]
    expect(options?.split(',')).toEqual(expect.arrayContaining(['nosuid', 'nodev']))
  })

  test('umount ends it; a second one says what is wrong and what to do', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount()
    expect(await lazylayer(work.path, 'umount', dir)).toMatchObject({ code: 0, stdout: '', stderr: '' })
    expect(await running.ended).toBe(0)
    const { code, stderr } = await lazylayer(work.path, 'umount', dir)
    expect(code).toBe(1)
    expect(stderr.trim().split('\n')).toHaveLength(2)
    expect(stderr).toContain(`nothing of lazylayer is mounted on ${dir}`)
  })

  test('a busy mount is not unmounted by umount, and named and detached by SIGTERM', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const running = await mount()
    const user = spawn('sleep', ['60'], { cwd: dir })
    try {
      const refused = await lazylayer(work.path, 'umount', dir)
      expect(refused.code).toBe(1)
      expect(refused.stderr).toContain('busy')
      expect(await cat(join(dir, 'one'))).toBe('one\n')
      expect(await running.stop()).toBe(0)
      expect(running.log()).toContain(`${dir} is busy: detached`)
      expect(await mountsBelow(dir)).toEqual([])
    } finally {
      user.kill('SIGKILL')
    }
  })

  test('an agent that is killed takes its mount with it', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount()
    process.kill(running.pid, 'SIGKILL')
    expect(await running.ended).toBe(137)
    expect(await mountsBelow(dir)).toEqual([])
    expect(await readdir(dir)).toEqual([])
    // its keeper says so: it could not itself
    expect(running.log()).toContain('the agent was ended by signal 9; what it mounted is detached')
    expect(running.log()).toContain(dir)
  })

  test('a dead mount of an earlier life is detached at start', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount()
    // the keeper first, so that nobody detaches
    const keeper = Number((await readFile(`/proc/${running.pid}/stat`, 'utf8')).split(' ')[3])
    process.kill(keeper, 'SIGKILL')
    process.kill(running.pid, 'SIGKILL')
    await running.ended
    await gone(running.pid)
    expect(await mountsBelow(dir)).toEqual([dir])
    const next = await mount()
    expect(next.log()).toContain('detaching a dead mount')
    expect(await cat(join(dir, 'one'))).toBe('one\n')
  })

  test('somebody else may unmount it', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount()
    expect((await command('umount', [dir])).code).toBe(0)
    expect(await running.ended).toBe(0)
  })

  test('a second image fetches nothing of a layer that the first one read', { timeout: TIMEOUT_MS }, async () => {
    await mount('one', 'cache-shared')
    const contents = await cat(join(dir, 'shared'))
    expect(contents.length).toBe(300_000)
    const other = join(work.path, 'other')
    await mkdir(other, { recursive: true })
    const first = agent
    try {
      const before = registry.seen.length
      const second = await mount('two', 'cache-shared', other)
      expect(await cat(join(other, 'shared'))).toBe(contents)
      const blobs = registry.seen.slice(before).filter((each) => each.kind === 'blob')
      // the config and its own layer, small enough to come whole with its index; nothing of the shared one
      expect(blobs).toHaveLength(2)
      await second.stop()
    } finally {
      await first?.stop()
    }
  })

  test('--detach returns when it is mounted; status lists it; umount ends it', { timeout: TIMEOUT_MS }, async () => {
    const args = ['mount', '--detach', `${registry.host}/image:one`, dir, ...flags('cache-detached')]
    const started = await lazylayer(work.path, ...args)
    expect(started).toMatchObject({
      code: 0,
      stdout: `${registry.host}/image:one is mounted on ${dir} (${rung}, 2 layers)\n`,
    })
    expect(await cat(join(dir, 'one'))).toBe('one\n')
    const status = JSON.parse((await lazylayer(work.path, 'status', dir, '--format', 'json')).stdout)
    expect(status).toMatchObject({
      pid: expect.any(Number),
      version: expect.any(String),
      root: dir,
      mount: rung,
      mounts: expect.arrayContaining([{ dir, kind: rung === 'portable' ? 'fuse' : rung }]),
      bytes: { served: expect.any(Number), fetched: expect.any(Number), verified: expect.any(Number) },
    })
    expect((await lazylayer(work.path, 'status')).stdout).toContain(dir)
    expect((await lazylayer(work.path, 'umount', dir)).code).toBe(0)
    await expect.poll(() => mountsBelow(dir)).toEqual([])
  })

  test('cache, sockets and everything in them are their owner’s alone', { timeout: TIMEOUT_MS }, async () => {
    await mount('one', 'cache-modes')
    await cat(join(dir, 'shared'))
    for (const folder of [join(work.path, 'cache-modes'), join(work.path, 'run')]) {
      expect((await stat(folder)).mode & 0o777).toBe(0o700)
      for (const name of await readdir(folder, { recursive: true })) {
        const found = await stat(join(folder, name))
        expect([name, found.mode & 0o077]).toEqual([name, 0])
      }
    }
  })

  if (rung !== RUNGS[0]) return // what follows mounts nothing

  test('ls and cat show files without a mount; data goes to stdout alone', { timeout: TIMEOUT_MS }, async () => {
    const image = `${registry.host}/image:two`
    const listed = await lazylayer(work.path, 'ls', image, ...reach('cache-ls'))
    expect(listed.stdout).toMatch(/-rw-r--r--\s+0:0\s+300000\s+1970-01-01T00:00:00\s+shared\n/)
    expect(await lazylayer(work.path, 'cat', image, '/two', ...reach('cache-ls'))).toEqual({
      code: 0,
      stdout: 'two\n',
      stderr: '',
    })
    const missing = await lazylayer(work.path, 'cat', image, '/three', ...reach('cache-ls'))
    expect(missing).toMatchObject({ code: 1, stdout: '' })
    expect(missing.stderr).toContain('the image has no "/three"')
  })

  test('exit code 2 is for the command line, 1 for what failed', { timeout: TIMEOUT_MS }, async () => {
    expect((await lazylayer(work.path, 'mount', 'only-one')).code).toBe(2)
    expect((await lazylayer(work.path, 'serve', '--diffid', 'maybe')).code).toBe(2)
    expect((await lazylayer(work.path, 'inspect', 'Not A Reference')).code).toBe(2)
    const unknown = await lazylayer(work.path, 'inspect', `${registry.host}/image:none`, '--cert-dir', registry.certDir)
    expect(unknown.code).toBe(1)
    expect(unknown.stderr.trim().split('\n').length).toBeLessThanOrEqual(3)
  })
}
