// What is served cannot be written to, and says so as soon as somebody wants to.
import { spawn } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { RUNGS, SERVE_RUNGS } from '../../src/mount/ladder.ts'
import { mountTable } from '../../src/mount/mount-table.ts'
import { PYTHON } from '../fixtures/listing.ts'
import { type Agent, lazylayer, startAgent } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { mountsBelow } from './engines/work-directory.ts'
import { codeOf, expectUnion, type Stage, setStage } from './stage.ts'

const TIMEOUT_MS = 120_000

/** What a process is told that wants to write in a directory, or to a file in it; 'done' is what must not be. */
async function writing(directory: string, file: string): Promise<Record<string, string | boolean>> {
  return JSON.parse(await succeed(PYTHON, ['-c', SCRIPT, directory, file]))
}

const SCRIPT = `
import errno, json, os, sys
directory, path = sys.argv[1:]
said = {}
def tried(name, call):
    try: call(); said[name] = 'done'
    except OSError as error: said[name] = errno.errorcode[error.errno]
for name in ('O_WRONLY', 'O_RDWR', 'O_APPEND', 'O_TRUNC'):
    flags = getattr(os, name) | (os.O_WRONLY if name in ('O_APPEND', 'O_TRUNC') else 0)
    tried(name, lambda: os.close(os.open(path, flags)))
tried('write', lambda: open(path, 'r+b', buffering=0).write(b'x'))
tried('truncate', lambda: os.truncate(path, 0))
tried('chmod', lambda: os.chmod(path, 0o600))
tried('chown', lambda: os.chown(path, 1, 1))
tried('utime', lambda: os.utime(path))
tried('setxattr', lambda: os.setxattr(path, 'user.x', b'x'))
tried('unlink', lambda: os.unlink(path))
tried('rename', lambda: os.rename(path, path + '.new'))
tried('link', lambda: os.link(path, path + '.new'))
tried('symlink', lambda: os.symlink('x', os.path.join(directory, 'new')))
tried('mkdir', lambda: os.mkdir(os.path.join(directory, 'new')))
tried('mknod', lambda: os.mknod(os.path.join(directory, 'new')))
tried('create', lambda: os.close(os.open(os.path.join(directory, 'new'), os.O_CREAT | os.O_WRONLY)))
said['access'] = os.access(path, os.W_OK)
said['statvfs'] = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
print(json.dumps(said))
`
const CALLS = [
  'write',
  'truncate',
  'chmod',
  'chown',
  'utime',
  'setxattr',
  'unlink',
  'rename',
  'link',
  'symlink',
  'mkdir',
]
const CREATIONS = ['mknod', 'create']
const OPENS = ['O_WRONLY', 'O_RDWR', 'O_APPEND', 'O_TRUNC']
const refused = (names: readonly string[]) => Object.fromEntries(names.map((each) => [each, 'EROFS']))
const READ_ONLY = { ...refused([...OPENS, ...CALLS, ...CREATIONS]), access: false, statvfs: true }

suite('what is served is read-only', lacking(['umount', 'mount', 'fusermount3', 'setpriv', 'unshare']), () => {
  let stage: Stage
  let agent: Agent | undefined

  beforeAll(async () => {
    stage = await setStage()
  })
  afterEach(async () => {
    await agent?.stop()
    agent = undefined
  })
  afterAll(() => stage?.close())

  for (const rung of RUNGS) {
    test(`an image (${rung})`, { timeout: TIMEOUT_MS }, async () => {
      const dir = join(stage.work.path, `mount-${rung}`)
      await mkdir(dir)
      const flags = ['--mount', rung, '--cert-dir', stage.registry.certDir, '--cache', join(stage.work.path, 'cache')]
      agent = await startAgent(stage.work.path, dir, ['mount', stage.reference, dir, ...flags])
      expect(await writing(dir, join(dir, 'dir/file'))).toEqual(READ_ONLY)
      expect(await readFile(join(dir, 'dir/file'), 'utf8')).toBe('top\n')
      for (const { point, options } of await mountTable()) {
        if (point === dir) expect(options).toContain('ro')
      }
    })
  }

  for (const rung of SERVE_RUNGS) {
    test(`a store's doors, one by the kernel, one call by call (${rung})`, { timeout: TIMEOUT_MS }, async () => {
      agent = await stage.serve(`store-${rung}`, '--mount', rung, '--diffid', 'claimed')
      const { root, reference, image } = stage
      const flags = ['--root', root]
      expect((await lazylayer(stage.work.path, 'pull', reference, ...flags)).code).toBe(0)
      const images = join(root, 'images')
      const overlay = join(images, 'overlay')
      const layer = JSON.parse(await readFile(join(images, 'overlay-layers/layers.json'), 'utf8'))[0].id
      for (const [directory, file] of [
        [images, 'overlay-layers/layers.json'],
        [overlay, `${layer}/link`],
        [join(overlay, layer, 'diff'), 'dir/file'],
      ] as const) {
        expect(await writing(directory, join(directory, file))).toEqual(READ_ONLY)
      }
      // what covers a layer is on top of it
      const kinds = (await agent.status()).mounts.filter((each) => each.dir.startsWith(`${images}/`))
      expect(kinds.length).toBe(rung === 'erofs' ? image.layers.length : 0)
      const table = await mountTable()
      const covered = table.find((each) => each.point === kinds[0]?.dir)
      const door = table.find((each) => each.point === images)
      if (rung === 'erofs') expect(covered?.parent).toBe(door?.id)

      // engines tell of use by a file that they create and a directory that they remove: both are not there
      const layers = join(root, 'layers', Buffer.from(reference).toString('base64'))
      const one = join(layers, image.layers[0]?.digest ?? '')
      await succeed('cat', [join(one, 'info')])
      expect(await codeOf(() => writeFile(join(one, 'use'), ''))).toBe('ENOENT')
      expect((await command('rmdir', [one])).stderr).toContain('No such file or directory')
      const said = await writing(join(one, 'diff'), join(one, 'diff/dir/file'))
      expect(said).toMatchObject(refused([...CALLS, ...CREATIONS]))
      expect(await readFile(join(one, 'diff/dir/file'), 'utf8')).toBe('base\n')
    })

    test(`a store ends with its read-only door, however it ends (${rung})`, { timeout: TIMEOUT_MS }, async () => {
      const { root, work } = stage
      agent = await stage.serve(`ending-${rung}`, '--mount', rung)
      // busy: nothing has changed
      const { close } = await holdOpen(join(root, 'images/overlay-layers'))
      expect((await lazylayer(work.path, 'umount', root)).code).not.toBe(0)
      const still = (await mountTable()).filter(({ point }) => point === join(root, 'images'))
      expect(still.length).toBe(1)
      expect(await codeOf(() => writeFile(join(root, 'images/new'), ''))).toBe('EROFS')
      await close()
      expect((await lazylayer(work.path, 'umount', root)).code).toBe(0)
      await agent.ended
      expect(await mountsBelow(root)).toEqual([])
      // killed: the keeper detaches it
      agent = await stage.serve(`ending-${rung}`, '--mount', rung)
      process.kill(agent.pid, 'SIGKILL')
      await agent.ended
      expect(await mountsBelow(root)).toEqual([])
      // both killed: the next start detaches it
      agent = await stage.serve(`ending-${rung}`, '--mount', rung)
      const keeper = Number((await readFile(`/proc/${agent.pid}/stat`, 'utf8')).split(' ')[3])
      process.kill(keeper, 'SIGKILL')
      process.kill(agent.pid, 'SIGKILL')
      await agent.ended
      while ((await command('kill', ['-0', `${agent.pid}`])).code === 0)
        await new Promise((done) => setTimeout(done, 20))
      agent = await stage.serve(`ending-${rung}`, '--mount', rung)
      expect((await mountTable()).filter(({ point }) => point === join(root, 'images')).length).toBe(1)
    })
  }

  test('a store under engines, whole', { timeout: TIMEOUT_MS }, async () => {
    agent = await stage.serve('whole', '--diffid', 'claimed')
    const flags = ['--root', stage.root]
    expect((await lazylayer(stage.work.path, 'pull', stage.reference, ...flags)).code).toBe(0)
    const overlay = join(stage.root, 'images/overlay')
    const listed: { id: string }[] = JSON.parse(
      await readFile(join(stage.root, 'images/overlay-layers/layers.json'), 'utf8'),
    )
    const links = await Promise.all(listed.map(({ id }) => readFile(join(overlay, id, 'link'), 'utf8')))
    await using union = await stage.overlay(
      links.reverse().map((each) => `l/${each}`),
      overlay,
    )
    await expectUnion(union.path)
  })
})

/** A process that is in a directory. */
async function holdOpen(dir: string): Promise<{ close(): Promise<void> }> {
  const child = spawn('sleep', ['600'], { cwd: dir, stdio: 'ignore' })
  await new Promise((done, fail) => child.once('spawn', done).once('error', fail))
  return {
    close: () =>
      new Promise((done) => {
        child.once('exit', () => done())
        child.kill('SIGKILL')
      }),
  }
}
