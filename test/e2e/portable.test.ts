// The portable rung's own: what fuse-native and libfuse 2 would get wrong, and mounts without the addon. That it shows the same trees,
// keeps the same promises and lives the same life as the other rungs is tested with them.
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { pattern } from '../fake/image.ts'
import { listTree, PYTHON } from '../fixtures/listing.ts'
import { type Agent, type As, lazylayer, lazylayerAs, startAgent } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, mountsBelow, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

const TIMEOUT_MS = 300_000
const ADDON = fileURLToPath(new URL('../../native/lazylayer.node', import.meta.url))
const NAMES = Array.from({ length: 3000 }, (_, i) => `name-${String(i).padStart(4, '0')}-${'x'.repeat(100)}`)
const ENTRIES: SourceEntry[] = [
  {
    path: 'file',
    type: 'file',
    content: pattern(500_001, 1),
    xattrs: new Map([['user.long', Buffer.alloc(2000, 'v')]]),
  },
  { path: 'same', type: 'hardlink', target: 'file' },
  { path: 'old', type: 'file', content: Buffer.from('old'), mtime: -1_000_000_001n },
  { path: 'fine', type: 'file', content: Buffer.from('fine'), mtime: 1_700_000_000n * 1_000_000_000n },
  { path: 'null', type: 'char', rdev: [1, 3], mode: 0o666 },
  { path: 'setuid', type: 'file', content: Buffer.from('#!'), mode: 0o4755 },
  { path: 'many', type: 'dir' },
  ...NAMES.map((name) => ({ path: `many/${name}`, type: 'file' as const, content: new Uint8Array() })),
]

/** Runs Python with `at` as its first argument. @returns stdout */
const python = async (script: string, at: string) =>
  (await succeed(PYTHON, ['-c', `import errno, os, sys\nat = sys.argv[1]\n${script}`, at])).trim()

const reason =
  lacking(['unshare', 'nsenter', 'umount', 'flock']) ??
  (process.arch === 'x64' ? undefined : 'fuse-native has no libfuse for this processor')

suite('the portable rung', reason, () => {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let agent: Agent | undefined
  let dir: string

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const layout = join(work.path, 'layout')
    await writeImage({ dir: layout, tag: 'image', layers: [{ kind: 'estargz', entries: ENTRIES }] })
    registry = await serveLayout(layout, work.path)
    dir = join(work.path, 'mount')
    await mkdir(dir)
  })
  afterEach(async () => {
    registry.faults = []
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  const image = () => `${registry.host}/image:image`
  const reach = (cache = 'cache') => ['--cache', join(work.path, cache), '--cert-dir', registry.certDir]
  async function mount(flags = ['--mount', 'portable'], cache = 'cache', as?: As): Promise<Agent> {
    agent = await startAgent(work.path, dir, ['mount', image(), dir, ...reach(cache), ...flags], as)
    return agent
  }

  test('shows hard links as one inode, devices, and the directory itself', { timeout: TIMEOUT_MS }, async () => {
    await mount()
    const lines = new Map((await listTree(dir)).map((line) => [line.path, line]))
    expect(lines.get('same')).toMatchObject({ inode: lines.get('file')?.inode, links: 2 })
    expect(lines.get('null')).toMatchObject({ type: 'char', rdev: [1, 3], mode: '0o666' })
    expect(lines.get('setuid')?.mode).toBe('0o4755')
    const listed = (await succeed('ls', ['-ai', dir])).trim().split('\n')
    expect(listed.map((each) => each.trim().split(' ')[1]).slice(0, 2)).toEqual(['.', '..'])
    // the listing's numbers are the files' own
    expect(listed.find((each) => each.endsWith(' file'))?.trim()).toBe(`${lines.get('file')?.inode} file`)
  })

  test('lists a large directory whole', { timeout: TIMEOUT_MS }, async () => {
    await mount()
    const listed = await python('print("\\n".join(sorted(os.listdir(at))))', join(dir, 'many'))
    expect(listed.split('\n')).toEqual(NAMES)
  })

  test('has times before 1970 as 1970', { timeout: TIMEOUT_MS }, async () => {
    await mount()
    expect(await python('print(os.lstat(at).st_mtime_ns)', join(dir, 'old'))).toBe('0')
    expect(await python('print(os.lstat(at).st_mtime_ns)', join(dir, 'fine'))).toBe('1700000000000000000')
  })

  test('answers ERANGE where an xattr does not fit, not what lies behind the buffer', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await mount()
    const script = `
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
path = at.encode()
def show(size): print(size if size >= 0 else errno.errorcode[ctypes.get_errno()])
small, large = ctypes.create_string_buffer(8), ctypes.create_string_buffer(4096)
show(libc.getxattr(path, b'user.long', small, 8))
show(libc.getxattr(path, b'user.long', None, 0))
show(libc.getxattr(path, b'user.long', large, 4096))
print(large.value == b'v' * 2000)
show(libc.getxattr(path, b'user.none', large, 4096))
show(libc.listxattr(path, small, 8))
show(libc.listxattr(path, None, 0))
show(libc.listxattr(path, large, 4096))
print(large.raw[:10])`
    expect((await python(script, join(dir, 'file'))).split('\n')).toEqual([
      'ERANGE',
      '2000',
      '2000',
      'True',
      'ENODATA',
      'ERANGE',
      '10',
      '10',
      "b'user.long\\x00'",
    ])
  })

  test('is read-only, and says what it holds to statfs', { timeout: TIMEOUT_MS }, async () => {
    await mount()
    const script = `
def show(work):
  try: print(work())
  except OSError as error: print(errno.errorcode[error.errno])
show(lambda: os.open(at + '/file', os.O_RDWR))
show(lambda: os.mkdir(at + '/new'))
show(lambda: os.unlink(at + '/file'))
show(lambda: os.open(at + '/none', os.O_RDONLY))
show(lambda: (os.statvfs(at).f_bsize, os.statvfs(at).f_namemax, os.statvfs(at).f_blocks > 0, os.statvfs(at).f_bfree))`
    expect((await python(script, dir)).split('\n')).toEqual([
      'EROFS',
      'EROFS',
      'EROFS',
      'ENOENT',
      '(4096, 255, True, 0)',
    ])
  })

  test('reads from the middle, across the end, and in parallel', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount(undefined, 'cache-read')
    const script = `
from concurrent.futures import ThreadPoolExecutor
fd = os.open(at, os.O_RDONLY)
pieces = list(ThreadPoolExecutor(16).map(lambda i: os.pread(fd, 10007, i * 10007), range(51)))
print(os.pread(fd, 100, 499990).hex(), len(os.pread(fd, 1, 500001)))
import hashlib
print(hashlib.sha256(b''.join(pieces)).hexdigest())`
    const [tail, whole] = (await python(script, join(dir, 'file'))).split('\n')
    const bytes = pattern(500_001, 1)
    expect(tail).toBe(`${Buffer.from(bytes.subarray(499_990)).toString('hex')} 0`)
    const hash = await crypto.subtle.digest('SHA-256', Uint8Array.from(bytes))
    expect(whole).toBe(Buffer.from(hash).toString('hex'))
    const { counters, bytes: counted } = await running.status()
    expect(counters).toMatchObject({ reads_failed: 0, expired: 0 })
    expect(counters.reads_missed).toBeGreaterThan(0)
    expect(counted.served).toBeGreaterThanOrEqual(500_001)
  })

  test('fails readers that wait when it is stopped, and ends', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount(undefined, 'cache-stopped')
    registry.faults = [{ match: /./, delayMs: 30_000 }]
    const reader = command('sha256sum', [join(dir, 'file')])
    for (let i = 0; i < 100 && (await running.status()).counters.reads_missed === 0; i++)
      await new Promise(setImmediate)
    expect(await running.stop()).toBe(0)
    expect((await reader).code).toBe(1)
    expect(await mountsBelow(dir)).toEqual([])
  })

  test('does not mount on a mount point, and says so', { timeout: TIMEOUT_MS }, async () => {
    const point = join(work.path, 'point')
    await mkdir(point)
    await succeed('mount', ['-t', 'tmpfs', 'tmpfs', point])
    const refused = await lazylayer(work.path, 'mount', image(), point, ...reach(), '--mount', 'portable')
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain('Mountpoint in use')
  })

  test('cannot serve a store', { timeout: TIMEOUT_MS }, async () => {
    const refused = await lazylayer(work.path, 'serve', join(work.path, 'store'), '--mount', 'portable')
    expect(refused.code).toBe(2)
    expect(refused.stderr).toContain('--mount "portable"')
  })

  /** The addon is a file that cannot be loaded, in a mount namespace of the agent's own. */
  const without = (): As => ({
    through: ['unshare', '-m', 'sh', '-c', `mount --bind /dev/null ${ADDON} && exec "$@"`, 'sh'],
    env: { ...process.env, RUNTIME_DIRECTORY: join(work.path, 'run') },
    sockets: join(work.path, 'run'),
  })

  test('is what is left without the addon, with its locks and all', { timeout: TIMEOUT_MS }, async () => {
    const running = await mount([], 'cache-without', without())
    expect(running.line).toBe(`${image()} is mounted on ${dir} (portable, 1 layer)`)
    expect(running.log()).toContain('fuse-native answers, slowly: the native part cannot be loaded')
    expect((await running.status()).why).toContain('lazylayer.node')
    const beside = ['-t', String(running.pid), '-m', '--', 'wc', '-c', join(dir, 'file')]
    expect(await succeed('nsenter', beside)).toMatch(/^500001 /)
    const [tree] = await readdir(join(work.path, 'cache-without/trees'))
    const lock = ['--nonblock', '--exclusive', join(work.path, 'cache-without/trees', tree as string, 'ready'), 'true']
    // the agent's is shared, so an exclusive one is refused
    expect((await command('flock', lock)).code).toBe(1)
    expect(await lazylayerAs(without(), 'umount', dir)).toMatchObject({ code: 0, stderr: '' })
    expect(await running.ended).toBe(0)
    expect((await command('flock', lock)).code).toBe(0)
  })

  test('a store, which needs the addon, says so without it', { timeout: TIMEOUT_MS }, async () => {
    const refused = await lazylayerAs(without(), 'serve', join(work.path, 'store'), ...reach('cache-without'))
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain('the native part cannot be loaded')
    expect(refused.stderr).toContain('npm run build')
  })
})
