// Access control lists decide on every rung as they do on any other filesystem; where they cannot, the image is not mounted.
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { SERVE_RUNGS } from '../../src/mount/ladder.ts'
import { acl, permissions } from '../fixtures/acl.ts'
import { PYTHON } from '../fixtures/listing.ts'
import { type Agent, lazylayer, startAgent } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

const TIMEOUT_MS = 120_000
const ACCESS = 'system.posix_acl_access'
const DEFAULT = 'system.posix_acl_default'
interface List {
  mode: number
  access?: Uint8Array
  inherited?: Uint8Array
}

/** The mode's group bits are the list's mask, as on any filesystem that keeps lists. */
const LISTS: Record<string, List> = {
  denied: { mode: 0o644, access: acl(['owner', 6], ['user', 0, 1000], ['group', 4], ['mask', 4], ['other', 4]) },
  allowed: { mode: 0o640, access: acl(['owner', 6], ['user', 4, 1000], ['group', 0], ['mask', 4], ['other', 0]) },
  masked: { mode: 0o600, access: acl(['owner', 6], ['user', 7, 1000], ['group', 0], ['mask', 0], ['other', 0]) },
  group: { mode: 0o640, access: acl(['owner', 6], ['group', 0], ['named', 4, 1001], ['mask', 4], ['other', 0]) },
  plain: { mode: 0o640 },
  open: { mode: 0o644 },
}
const DIRECTORIES: Record<string, List> = {
  'denied-below': {
    mode: 0o755,
    access: acl(['owner', 7], ['user', 0, 1000], ['group', 5], ['mask', 5], ['other', 5]),
  },
  'listed-only': {
    mode: 0o750,
    access: acl(['owner', 7], ['user', 4, 1000], ['group', 0], ['mask', 5], ['other', 0]),
  },
  inherited: {
    mode: 0o755,
    inherited: acl(['owner', 7], ['user', 5, 1000], ['group', 5], ['mask', 5], ['other', 0]),
  },
}
const PATHS = [...Object.keys(LISTS), ...Object.keys(DIRECTORIES).flatMap((each) => [each, `${each}/file`])]

function xattrsOf({ access, inherited }: List): Map<string, Uint8Array> {
  const xattrs = new Map<string, Uint8Array>()
  if (access !== undefined) xattrs.set(ACCESS, access)
  if (inherited !== undefined) xattrs.set(DEFAULT, inherited)
  return xattrs
}

const ENTRIES: SourceEntry[] = [
  ...Object.entries(LISTS).map(([path, list]) => ({
    path,
    type: 'file' as const,
    mode: list.mode,
    content: Buffer.from(path),
    xattrs: xattrsOf(list),
  })),
  ...Object.entries(DIRECTORIES).flatMap(([path, list]) => [
    { path, type: 'dir' as const, mode: list.mode, xattrs: xattrsOf(list) },
    { path: `${path}/file`, type: 'file' as const, content: Buffer.from(path) },
  ]),
]

suite('access control lists', lacking(['umount', 'mount', 'fusermount3', 'setpriv']), () => {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let agent: Agent | undefined
  /** What a filesystem of the kernel says, by user. */
  const expected = new Map<number, Record<string, string>>()
  const mounted: string[] = []
  const USERS = [1000, 1001, 1002]

  beforeAll(async () => {
    work = await makeWorkDirectory()
    await chmod(work.path, 0o755)
    const layout = join(work.path, 'layout')
    await writeImage({ dir: layout, tag: 'image', layers: [{ kind: 'estargz', entries: ENTRIES }] })
    registry = await serveLayout(layout, work.path)
    const kernel = join(work.path, 'tmpfs')
    await mkdir(kernel)
    await succeed('mount', ['-t', 'tmpfs', 'tmpfs', kernel])
    for (const { path, type, content } of ENTRIES) {
      const at = join(kernel, path)
      if (type === 'dir') await mkdir(at)
      else await writeFile(at, content as Uint8Array)
    }
    // now, because what is made in a directory inherits its default list
    for (const { path, mode = 0o644, xattrs = new Map() } of ENTRIES) {
      const at = join(kernel, path)
      for (const [name, value] of xattrs) {
        const script = 'import os, sys; os.setxattr(sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]))'
        await succeed(PYTHON, ['-c', script, at, name, Buffer.from(value).toString('hex')])
      }
      await chmod(at, mode)
    }
    await chmod(kernel, 0o755)
    for (const user of USERS) expected.set(user, await permissions(kernel, PATHS, user))
    await succeed('umount', [kernel])
  })
  afterEach(async () => {
    for (const each of mounted.splice(0).reverse()) await command('umount', ['--lazy', each])
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  async function expectObeyed(at: string): Promise<void> {
    for (const user of USERS) expect(await permissions(at, PATHS, user)).toEqual(expected.get(user))
    const script = 'import os, sys; print(*sorted(os.listxattr(sys.argv[1])))'
    expect((await succeed(PYTHON, ['-c', script, join(at, 'denied')])).trim()).toBe(ACCESS)
    expect((await succeed(PYTHON, ['-c', script, join(at, 'inherited')])).trim()).toBe(DEFAULT)
    expect((await succeed(PYTHON, ['-c', script, join(at, 'open')])).trim()).toBe('')
  }

  test('the reference denies and allows', () => {
    expect(expected.get(1000)).toMatchObject({
      denied: expect.stringMatching(/^ /),
      allowed: expect.stringMatching(/^r /),
      masked: expect.stringMatching(/^ /),
      'denied-below/file': 'EACCES',
      'listed-only': expect.stringMatching(/^r /),
      'listed-only/file': 'EACCES',
    })
    expect(expected.get(1001)).toMatchObject({
      denied: expect.stringMatching(/^r /),
      group: expect.stringMatching(/^r /),
      allowed: expect.stringMatching(/^ /),
    })
  })

  const flags = (rung: string) => [
    ...['--mount', rung, '--cert-dir', registry.certDir],
    ...['--cache', join(work.path, 'cache')],
  ]

  for (const rung of SERVE_RUNGS) {
    test(`are obeyed in a mounted image, and in an overlay on it (${rung})`, { timeout: TIMEOUT_MS }, async () => {
      const dir = join(work.path, `mount-${rung}`)
      await mkdir(dir)
      agent = await startAgent(work.path, dir, ['mount', `${registry.host}/image:image`, dir, ...flags(rung)])
      await expectObeyed(dir)
      await expectObeyed(dir) // what the kernel remembers is the same
      const own = join(work.path, `overlay-${rung}`)
      for (const each of ['upper', 'work', 'merged']) await mkdir(join(own, each), { recursive: true })
      const options = `lowerdir=${dir},upperdir=${own}/upper,workdir=${own}/work`
      await succeed('mount', ['-t', 'overlay', 'overlay', '-o', options, join(own, 'merged')])
      mounted.push(join(own, 'merged'))
      await expectObeyed(join(own, 'merged'))
    })
  }

  test('are why fuse-native does not mount an image', { timeout: TIMEOUT_MS }, async () => {
    const dir = join(work.path, 'mount-portable')
    await mkdir(dir)
    const args = ['mount', `${registry.host}/image:image`, dir, ...flags('portable')]
    const { code, stderr } = await lazylayer(work.path, ...args)
    expect(code).not.toBe(0)
    expect(stderr).toMatch(
      /\/(denied|allowed|masked|group|denied-below|listed-only|inherited) has an access control list/,
    )
    expect(stderr).toContain('--mount fuse')
  })
})
