// What programs may ask of a read-only filesystem, asked of an image on every rung, and through an overlay on it: the answers are those of
// its tar, unpacked on a filesystem of the kernel that is read-only, too. The image has an entry of every kind that a tar has.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { noise } from '../../bench/tree.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { hex } from '../../src/image/digest.ts'
import { RUNGS, type Rung } from '../../src/mount/ladder.ts'
import { acl } from '../fixtures/acl.ts'
import { PYTHON } from '../fixtures/listing.ts'
import { dir, file } from '../fixtures/source-entries.ts'
import { type Agent, startAgent } from './agent.ts'
import { succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

const TIMEOUT_MS = 120_000
const WALK = join(import.meta.dirname, '../fixtures/walk.py')
const OTHER_USER = '12345'

const xattrs = (all: Record<string, Uint8Array>) => ({ xattrs: new Map(Object.entries(all)) })
const sparse = (bytes: number) => {
  const content = new Uint8Array(bytes)
  content.set(noise('sparse', 5000), 300_000)
  return content
}

/** cap_net_bind_service=ep, as the kernel keeps it (include/uapi/linux/capability.h, revision 2). */
const CAPABILITY = Uint8Array.of(1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

const ENTRIES: readonly SourceEntry[] = [
  dir('', { mode: 0o755, uid: 1, gid: 2, mtime: 1_600_000_000_123_456_789n }),
  file('file', noise('file', 300_001), { mode: 0o755, mtime: 1_700_000_000_999_999_999n }),
  file('empty', ''),
  file('zeros', new Uint8Array(1 << 20)),
  file('sparse', sparse(900_000)),
  file('one', 'x', { mode: 0 }),
  file('page', noise('page', 4096), { mode: 0o640, uid: 12_345 }),
  file('setuid', '#!', { mode: 0o4755 }),
  file('setgid', '#!', { mode: 0o2755, uid: 70_000, gid: 4_000_000_000 }),
  file('of-the-user', 'x', { mode: 0o400, uid: 12_345, gid: 12_345 }),
  file('old', 'before 1970', { mtime: -1_500_000_001n }),
  file('name\n"\\\u{1f600}', 'names'),
  file('n'.repeat(255), 'a long name'),
  file(`${'deep/'.repeat(100)}file`, 'deep'),
  { path: 'linked', type: 'hardlink', target: 'file' },
  { path: 'dir/linked', type: 'hardlink', target: 'file' },
  { path: 'link', type: 'symlink', target: 'file' },
  { path: 'link-to-dir', type: 'symlink', target: 'dir/' },
  { path: 'loop', type: 'symlink', target: 'loop' },
  { path: 'dangling', type: 'symlink', target: 'void/none' },
  { path: 'far', type: 'symlink', target: 't'.repeat(4095) },
  { path: 'null', type: 'char', rdev: [1, 3], mode: 0o666 },
  { path: 'disk', type: 'block', rdev: [259, 100_000] },
  { path: 'pipe', type: 'fifo', mode: 0o622 },
  dir('dir'),
  ...Array.from({ length: 100 }, (_, i) => dir('deep/'.repeat(i + 1).slice(0, -1), { mtime: BigInt(i) })),
  dir('sticky', { mode: 0o1777 }),
  dir('shared', { mode: 0o2775, gid: 12_345 }),
  dir('closed', { mode: 0o700 }),
  file('closed/file', 'x'),
  dir('listed', { mode: 0o744 }),
  file('listed/file', 'x'),
  dir('searched', { mode: 0o711 }),
  file('searched/file', 'x'),
  dir('void'),
  file(
    'xattrs',
    'x',
    xattrs({
      'user.long': noise('user.long', 3000),
      'user.empty': new Uint8Array(),
      'trusted.bin': Uint8Array.of(0, 10),
    }),
  ),
  file('capability', 'x', { mode: 0o755, ...xattrs({ 'security.capability': CAPABILITY }) }),
  dir('dir-xattrs', xattrs({ 'user.x': Buffer.from('x') })),
  dir('many'),
  ...Array.from({ length: 700 }, (_, i) => file(`many/${i}${'-'.repeat(i % 90)}`, '')),
]
/** The portable rung mounts no image that has lists. */
const LISTS: readonly SourceEntry[] = [
  file(
    'denied',
    'x',
    xattrs({
      'system.posix_acl_access': acl(['owner', 6], ['user', 0, 12_345], ['group', 4], ['mask', 4], ['other', 4]),
    }),
  ),
  dir(
    'inherited',
    xattrs({
      'system.posix_acl_default': acl(['owner', 7], ['user', 5, 12_345], ['group', 5], ['mask', 5], ['other', 0]),
    }),
  ),
]

/** Of what another user may do: how many names of extended attributes are listed. */
const LISTED = 8

type Answers = Record<string, Record<string, unknown>>

/** What a rung says instead, as far as it is known to. */
function as(rung: Rung, plain: Answers, where: 'alone' | 'below an overlay'): Answers {
  const answers = structuredClone(plain)
  if (rung !== 'erofs' && where === 'alone') {
    // the kernel asks for names without saying for whom, where an overlay asks: so those that are root's alone are listed to everybody
    const may = answers['./xattrs']?.['another user'] as unknown[]
    may[LISTED] = (may[LISTED] as number) + 1
  }
  for (const each of rung === 'portable' ? Object.values(answers) : []) {
    // fuse-native has dates of JavaScript, and none before 1970
    const mtime = BigInt((each.mtime as string | undefined) ?? 0)
    if ('mtime' in each) each.mtime = String(mtime < 0n ? 0n : mtime - (mtime % 1_000_000n))
  }
  return answers
}

/** What is answered otherwise, in sentences. */
function differences(found: Answers, wanted: Answers): string[] {
  const paths = new Set([...Object.keys(found), ...Object.keys(wanted)])
  return [...paths].flatMap((path) => {
    const [one, other] = [found[path] ?? {}, wanted[path] ?? {}]
    const questions = new Set([...Object.keys(one), ...Object.keys(other)])
    return [...questions].flatMap((question) => {
      const [is, was] = [JSON.stringify(one[question]), JSON.stringify(other[question])]
      return is === was ? [] : [`${path}, ${question}: ${is} instead of ${was}`]
    })
  })
}

suite('a read-only filesystem', lacking(['fusermount3', 'mount', 'umount', 'tar', 'python3']), () => {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let agent: Agent | undefined
  const mounted: string[] = []
  const wanted = new Map<string, { plain: Answers; overlay: Answers }>()

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const layout = join(work.path, 'layout')
    await mkdir(join(work.path, 'nothing'))
    for (const [tag, entries] of Object.entries({ all: [...ENTRIES, ...LISTS], portable: ENTRIES })) {
      const { layers } = await writeImage({ dir: layout, tag, layers: [{ kind: 'estargz', entries }] })
      const to = await made(`tar-${tag}`)
      await succeed('mount', ['-t', 'tmpfs', '-o', 'mode=755,nosuid,nodev', 'tmpfs', to])
      mounted.push(to)
      const blob = join(layout, 'blobs/sha256', hex(layers[0]?.digest ?? 'sha256:'))
      await succeed('tar', ['-xzpf', blob, '-C', to, '--numeric-owner', '--xattrs', '--xattrs-include=*'])
      await succeed('mount', ['-o', 'remount,ro,nosuid,nodev', to])
      wanted.set(tag, { plain: await walk(to), overlay: await walkOverlay(to) })
    }
    registry = await serveLayout(layout, work.path)
  }, TIMEOUT_MS)
  afterEach(async () => {
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    for (const path of mounted) await succeed('umount', [path])
    await registry?.close()
    await work?.remove()
  })

  async function made(name: string): Promise<string> {
    const path = join(work.path, name)
    await mkdir(path)
    return path
  }

  async function walk(path: string): Promise<Answers> {
    return JSON.parse(await succeed(PYTHON, [WALK, path, OTHER_USER]))
  }

  async function walkOverlay(lower: string): Promise<Answers> {
    const path = await made(`overlay-${mounted.length}-${lower.split('/').at(-1)}`)
    const options = `ro,nosuid,nodev,lowerdir=${lower}:${join(work.path, 'nothing')}`
    await succeed('mount', ['-t', 'overlay', 'overlay', '-o', options, path])
    try {
      return await walk(path)
    } finally {
      await succeed('umount', [path])
    }
  }

  async function expectAnswers(rung: Rung): Promise<void> {
    const tag = rung === 'portable' ? 'portable' : 'all'
    const path = await made(`mount-${rung}`)
    const flags = ['--cache', join(work.path, `cache-${rung}`), '--cert-dir', registry.certDir, '--mount', rung]
    agent = await startAgent(work.path, path, ['mount', `${registry.host}/image:${tag}`, path, ...flags])
    const { plain, overlay } = wanted.get(tag) as { plain: Answers; overlay: Answers } // made for each
    expect(Object.keys(plain).length).toBeGreaterThan(800)
    expect(differences(await walk(path), as(rung, plain, 'alone'))).toEqual([])
    expect(differences(await walkOverlay(path), as(rung, overlay, 'below an overlay'))).toEqual([])
  }

  test.each(RUNGS)('answers as its tar does, unpacked (%s)', { timeout: TIMEOUT_MS }, expectAnswers)
})
