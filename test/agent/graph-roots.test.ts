import { expect, test } from 'vitest'
import { graphRoots, parseUsers } from '../../src/agent/graph-roots.ts'
import type { Places } from '../../src/registry/places.ts'
import { DIRECTORY, files, PROGRAM } from '../cli/doctor/machine.ts'

const SYSTEM = { dir: '/var/lib/containers/storage', run: '/run/containers/storage' }
const ROOT: Places = { etc: '/etc', home: '/root', run: '/run/containers', uid: 0, env: {} }
const USER: Places = { ...ROOT, home: '/home/ada', uid: 1000, env: { USER: 'ada' } }
const CONF = '/etc/containers/storage.conf'

test('without any configuration there is the usual root, and that of each user who has one', async () => {
  expect(await graphRoots(ROOT, files({}))).toEqual([SYSTEM])
  const passwd =
    'root:x:0:0::/root:/bin/sh\nada:x:1000:1000:,,,:/home/ada:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n'
  const seen = { '/home/ada/.local/share/containers/storage': DIRECTORY }
  expect(await graphRoots(ROOT, files({ texts: { '/etc/passwd': passwd }, seen }))).toEqual([
    SYSTEM,
    { dir: '/home/ada/.local/share/containers/storage', run: '/run/user/1000/containers' },
  ])
})

test('storage.conf and crio.conf name others, and the usual one stays: it may have been used before', async () => {
  const texts = {
    [CONF]: '[storage]\ngraphroot = "/srv/graph"\nrunroot = "/srv/run"\nimagestore = "/srv/images"\n',
    '/etc/crio/crio.conf': '[crio]\nroot = "/srv/crio"\n',
    '/etc/crio/crio.conf.d/10-x': '[crio]\nroot = "/srv/crio2"\nimagestore = "/srv/crio-images"\n',
  }
  expect(await graphRoots(ROOT, files({ texts }))).toEqual([
    SYSTEM,
    { dir: '/srv/graph', run: '/srv/run' },
    { dir: '/srv/images', run: '/srv/run' },
    { dir: '/srv/crio2', run: '/srv/run' },
    { dir: '/srv/crio-images', run: '/srv/run' },
  ])
})

test('a user’s own storage.conf and the system’s path for users are expanded', async () => {
  const texts = {
    '/etc/passwd': 'ada:x:1000:1000::/home/ada:/bin/sh\n',
    // biome-ignore lint/suspicious/noTemplateCurlyInString: engines expand it
    [CONF]: '[storage]\nrootless_storage_path = "/srv/$USER/${UID}/$OTHER"\n',
    '/home/ada/.config/containers/storage.conf': '[storage]\ngraphroot = "$HOME/graph"\nrunroot = "$HOME/run"\n',
  }
  const seen = {
    '/home/ada/.config/containers/storage.conf': PROGRAM,
    '/home/ada/graph': DIRECTORY,
    '/srv/ada/1000/$OTHER': DIRECTORY,
  }
  const roots = ['/home/ada/graph', '/srv/ada/1000/$OTHER'].map((dir) => ({ dir, run: '/home/ada/run' }))
  expect(await graphRoots(ROOT, files({ texts, seen }))).toEqual([SYSTEM, ...roots])
})

test('a user’s agent looks at the user’s roots only', async () => {
  const texts = { '/etc/passwd': 'bob:x:1001:1001::/home/bob:/bin/sh\n' }
  const run = '/run/user/1000/containers'
  const seen = { '/home/bob/.local/share/containers/storage': DIRECTORY }
  expect(await graphRoots(USER, files({ texts, seen }))).toEqual([
    { dir: '/home/ada/.local/share/containers/storage', run },
  ])
  const env = { XDG_DATA_HOME: '/data' }
  expect(await graphRoots({ ...USER, env }, files({}))).toEqual([{ dir: '/data/containers/storage', run }])
})

test('a configuration that cannot be read may name roots that nobody knows', async () => {
  await expect(graphRoots(ROOT, files({ texts: { [CONF]: 'graphroot = ' } }))).rejects.toMatchObject({ code: 'usage' })
  await expect(graphRoots(ROOT, files({ texts: { '/etc/crio/crio.conf': '[crio' } }))).rejects.toMatchObject({
    code: 'usage',
  })
})

test('users are those with a home', () => {
  const lines = [
    'root:x:0:0::/root:/bin/sh',
    'x',
    '',
    'a:x:1:1::/:',
    'b:x:2:2::relative:',
    'c:x:-1:0::/c:',
    'd:x:3:3::/d:',
  ]
  expect(parseUsers(lines.join('\n'))).toEqual([{ name: 'd', uid: 3, home: '/d' }])
  expect(parseUsers('u:x:5:5::/u:\n'.repeat(10_000))).toHaveLength(512)
})
