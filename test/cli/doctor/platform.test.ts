import { expect, test } from 'vitest'
import { cache } from '../../../src/cli/doctor/cache.ts'
import { addon, fuse, kernel, node, type PlatformHere, requestTimeout } from '../../../src/cli/doctor/platform.ts'
import { type Contents, DEVICE, DIRECTORY, files, PROGRAM, summary } from './machine.ts'

function platform(of: Partial<PlatformHere>): PlatformHere {
  return {
    node: '24.1.0',
    noAddon: undefined,
    kernel: '6.12.1',
    uid: 0,
    files: files({}),
    trial: async () => ({ rung: 'erofs', why: undefined }),
    ...of,
  }
}

test.each([
  ['24.1.0', 'ok'],
  ['22.19.0', 'ok'],
  ['22.18.9', 'problem'],
  ['20.20.2', 'problem'],
])('Node %s is %s', async (version, state) => {
  expect(await node.run(platform({ node: version }))).toMatchObject({ state })
})

test('a native part that cannot be loaded is a problem, with the reason', async () => {
  expect(await addon.run(platform({}))).toMatchObject({ state: 'ok' })
  expect(summary(await addon.run(platform({ noAddon: 'no such file' })))).toEqual({
    state: 'problem',
    text: expect.stringMatching(/no such file.*npm run build/),
  })
})

test.each([
  ['erofs', undefined, 'ok', /mounts EROFS/],
  ['fuse', 'EPERM', 'warning', /EPERM.*FUSE server answers.*6\.12/],
  [undefined, 'EPERM; ENOENT', 'problem', /EPERM; ENOENT.*neither/],
] as const)('where %s is the highest rung, the kernel is so', async (rung, why, state, text) => {
  const found = await kernel.run(platform({ trial: async () => ({ rung, why }) }))
  expect(summary(found)).toEqual({ state, text: expect.stringMatching(text) })
})

const HELPER = '/usr/bin/fusermount3'
const SETUID = { ...PROGRAM, mode: 0o4755 }
const ALLOWING = { '/etc/fuse.conf': '# x\nuser_allow_other\n' }

test.each<[string, number, Contents, string, RegExp]>([
  ['root with the device', 0, { seen: { '/dev/fuse': DEVICE } }, 'ok', /^\/dev\/fuse$/],
  ['no device', 0, {}, 'problem', /missing.*modprobe/],
  ['a device for others', 0, { seen: { '/dev/fuse': { ...DEVICE, writable: false } } }, 'problem', /may not be opened/],
  [
    'a user without fusermount3',
    1000,
    { seen: { '/dev/fuse': DEVICE }, texts: ALLOWING },
    'warning',
    /missing: .*lazylayer mount .*fuse3/,
  ],
  [
    'a user whose fusermount3 may not mount',
    1000,
    { seen: { '/dev/fuse': DEVICE, [HELPER]: PROGRAM }, texts: ALLOWING },
    'warning',
    /setuid root: .*lazylayer mount/,
  ],
  ['a user alone', 1000, { seen: { '/dev/fuse': DEVICE, [HELPER]: SETUID } }, 'warning', /user_allow_other into/],
  [
    'a user who may not read fuse.conf',
    1000,
    { seen: { '/dev/fuse': DEVICE, [HELPER]: SETUID }, texts: { '/etc/fuse.conf': 'closed' } },
    'warning',
    /user_allow_other into/,
  ],
  [
    'a commented line',
    1000,
    { seen: { '/dev/fuse': DEVICE, [HELPER]: SETUID }, texts: { '/etc/fuse.conf': '#user_allow_other' } },
    'warning',
    /user_allow_other into/,
  ],
  [
    'a user with all of it',
    1000,
    { seen: { '/dev/fuse': DEVICE, [HELPER]: SETUID }, texts: ALLOWING },
    'ok',
    /fusermount3/,
  ],
])('FUSE: %s', async (_, uid, contents, state, text) => {
  expect(summary(await fuse.run(platform({ uid, files: files(contents) })))).toEqual({
    state,
    text: expect.stringMatching(text),
  })
})

const MAX = '/proc/sys/fs/fuse/max_request_timeout'
const DEFAULT = '/proc/sys/fs/fuse/default_request_timeout'

test.each<[string, Record<string, string>, string, RegExp]>([
  ['an old kernel', {}, 'ok', /not there/],
  ['both off', { [MAX]: '0\n', [DEFAULT]: '0\n' }, 'ok', /is 0/],
  ['a maximum', { [MAX]: '60\n', [DEFAULT]: '0\n' }, 'problem', /60 s.*sysctl -w fs\.fuse\.max_request_timeout=0/],
  ['a default', { [MAX]: '0\n', [DEFAULT]: '30\n' }, 'problem', /30 s.*sysctl -w fs\.fuse\.default_request_timeout=0/],
])('request timeouts: %s', async (_, texts, state, text) => {
  expect(summary(await requestTimeout.run(platform({ files: files({ texts }) })))).toEqual({
    state,
    text: expect.stringMatching(text),
  })
})

const CACHE = '/var/lib/c'

test.each<[string, Contents, string, RegExp]>([
  ['on a disk, with room', { seen: { [CACHE]: DIRECTORY } }, 'ok', /100\.0 GB free/],
  ['not made yet', {}, 'ok', /disk filesystem/],
  ['open to others', { seen: { [CACHE]: { ...DIRECTORY, mode: 0o755 } } }, 'warning', /0755.*chmod 700/],
  ['of another user', { seen: { [CACHE]: { ...DIRECTORY, uid: 7 } } }, 'problem', /belongs to user 7/],
  ['a file', { seen: { [CACHE]: PROGRAM } }, 'problem', /no directory/],
  ['read only', { seen: { [CACHE]: { ...DIRECTORY, writable: false } } }, 'problem', /cannot be written.*--cache DIR/],
  ['on tmpfs', { type: 0x01021994 }, 'warning', /tmpfs/],
  ['on overlayfs', { type: 0x794c7630 }, 'warning', /overlayfs/],
  ['on NFS', { type: 0x6969 }, 'problem', /NFS/],
  ['nearly full', { free: 1e9 }, 'warning', /1\.0 GB free.*Make room/],
  ['full', { free: 1e6 }, 'problem', /1\.0 MB free.*Make room/],
  ['closed to this user', { seen: { [CACHE]: { ...DIRECTORY, kind: 'closed' } } }, 'problem', /not open.*--cache DIR/],
  ['on a dead mount', { seen: { [CACHE]: { ...DIRECTORY, kind: 'dead' } } }, 'problem', /server is gone.*--cache DIR/],
  ['on a mount that hangs', { seen: { '/var': { ...DIRECTORY, kind: 'hung' } } }, 'problem', /^\/var does not answer/],
  ['of which nothing can be asked', { free: Number.NaN }, 'problem', /cannot be asked for its free space.*--cache DIR/],
])('the cache: %s', async (_, contents, state, text) => {
  const found = await cache.run({ cache: CACHE, uid: 0, files: files(contents) })
  expect(summary(found)).toEqual({ state, text: expect.stringMatching(text) })
})
