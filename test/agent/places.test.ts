import { homedir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { defaultPlaces, devicesFor, logFor, socketFor } from '../../src/agent/places.ts'
import { userOutside } from '../../src/registry/places.ts'

const ROOT = {
  root: '/var/lib/lazylayer/store',
  cache: '/var/lib/lazylayer/cache',
  sockets: '/run/lazylayer',
}
const XDG = { XDG_DATA_HOME: '/d', XDG_CACHE_HOME: '/c', XDG_RUNTIME_DIR: '/r' }

test("root has the system's directories, whatever its session says", () => {
  expect(defaultPlaces({}, 0)).toEqual(ROOT)
  expect(defaultPlaces(XDG, 0)).toEqual(ROOT)
})

test('everybody else has XDG directories', () => {
  expect(defaultPlaces(XDG, 1000)).toEqual({
    root: '/d/lazylayer/store',
    cache: '/c/lazylayer',
    sockets: '/r/lazylayer',
  })
})

test.each([{}, { XDG_DATA_HOME: '', XDG_CACHE_HOME: 'relative', XDG_RUNTIME_DIR: './run' }])(
  'without usable XDG variables (%j) all is below the home directory',
  (env) => {
    const home = homedir()
    expect(defaultPlaces(env, 1000)).toEqual({
      root: join(home, '.local/share/lazylayer/store'),
      cache: join(home, '.cache/lazylayer'),
      sockets: join(home, '.cache/lazylayer/run'),
    })
  },
)

test("what systemd gives a service goes first; of several directories, the unit's first", () => {
  const env = { STATE_DIRECTORY: '/s', CACHE_DIRECTORY: '/k:/k2', RUNTIME_DIRECTORY: '/u', ...XDG }
  for (const uid of [0, 1000]) {
    expect(defaultPlaces(env, uid)).toEqual({ root: '/s/store', cache: '/k', sockets: '/u' })
  }
})

test('a socket is named by what is mounted, however it is written, and short enough for a socket', () => {
  const socket = socketFor('/run/lazylayer', '/mnt/a')
  expect(socketFor('/run/lazylayer', '/mnt/../mnt/a/')).toBe(socket)
  expect(socketFor('/run/lazylayer', '/mnt/b')).not.toBe(socket)
  expect(socketFor('/run/lazylayer', `/${'long/'.repeat(500)}`).length).toBe(socket.length)
  expect(socket.length).toBeLessThan(107)
})

test('what belongs to a mount lies beside its socket', () => {
  const socket = socketFor('/run/x.sock/lazylayer', '/mnt')
  expect(logFor(socket)).toBe(socket.replace(/sock$/, 'log'))
  expect(devicesFor(socket)).toBe(socket.replace(/sock$/, 'devices'))
})

test.each([
  [0, '         0          0 4294967295\n', 0],
  [1000, '         0          0 4294967295\n', 1000],
  // podman unshare: root is the user, the others are its subordinates
  [0, '         0       1000          1\n         1     100000      65536\n', 1000],
  [5, '         0       1000          1\n         1     100000      65536\n', 100_004],
  [70_000, '         0       1000          1\n         1     100000      65536\n', 70_000],
  [0, '', 0],
])('user %i of a namespace with the map %j is user %i outside', (uid, map, outside) => {
  expect(userOutside(uid, map)).toBe(outside)
})
