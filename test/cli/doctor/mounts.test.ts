import { expect, test } from 'vitest'
import { devicesFor, socketFor } from '../../../src/agent/agent-places.ts'
import type { Status } from '../../../src/agent/socket.ts'
import { agent, deadMounts, type MountNeeds, propagation } from '../../../src/cli/doctor/mounts.ts'
import type { SeenFile } from '../../../src/engines/machine.ts'
import type { MountEntry } from '../../../src/mount/mount-table.ts'
import { DIRECTORY, files, summary } from './machine.ts'

const ROOT = '/var/lib/s'

const entry = (point: string, type: string, source: string): MountEntry => ({
  id: '1',
  parent: '0',
  device: '0:1',
  point,
  shared: true,
  kept: false,
  type,
  source,
  options: [],
})
const fuse = (point: string) => entry(point, 'fuse.lazylayer', 'lazylayer')
const erofs = (point: string) => entry(point, 'erofs', '/proc/self/fd/9')
const devices = (point: string) => devicesFor(socketFor('/run/x', point))

function needs(of: Partial<MountNeeds> & { table?: MountEntry[]; seen?: Record<string, SeenFile> }): MountNeeds {
  const { table = [], seen = {}, ...rest } = of
  return {
    root: ROOT,
    real: ROOT,
    files: files({ seen }),
    mounts: async () => table,
    agents: async () => ({ statuses: [], silent: [] }),
    unseen: async () => undefined,
    ...rest,
  }
}

const STATUS: Status = {
  pid: 7,
  version: '1.0.0',
  root: ROOT,
  serves: 'store',
  mount: 'fuse',
  why: 'EPERM',
  mounts: [],
  layers: 0,
  bytes: { served: 0, fetched: 0, verified: 0 },
  requests: 0,
  counters: {},
  gauges: [],
  distributions: [],
}

test.each([
  ['none', { statuses: [], silent: [] }, 'warning', /none serves \/var\/lib\/s\. Run lazylayer serve/],
  [
    'one',
    { statuses: [STATUS], silent: [] },
    'ok',
    /^1\.0\.0 serves \/var\/lib\/s by fuse \(not higher: EPERM\), process 7$/,
  ],
  [
    'one in the kernel',
    { statuses: [{ pid: 7, version: '1.0.0', root: ROOT, mount: 'erofs' } as Status], silent: [] },
    'ok',
    /by erofs, process 7; opening its files with O_DIRECT is EINVAL \(--mount fuse has it\)$/,
  ],
  ['another', { statuses: [{ ...STATUS, root: '/x' }], silent: [] }, 'warning', /none serves/],
  [
    'one that is silent',
    { statuses: [STATUS], silent: [{ why: '/run/a.sock: no answer' }] },
    'problem',
    /no answer\. Find the process .*ss -xlp.*start it again/,
  ],
] as const)('agents: %s', async (_, found, state, text) => {
  const agents = async () => ({ statuses: [...found.statuses], silent: [...found.silent] })
  expect(summary(await agent.run(needs({ agents })))).toEqual({ state, text: expect.stringMatching(text) })
})

test('an agent and its mount are found by what a symlink to its directory leads to', async () => {
  const agents = async () => ({ statuses: [STATUS], silent: [] })
  const unseen = async (point: string) => (point === ROOT ? '/var is not shared' : undefined)
  const linked = needs({ root: '/link', real: ROOT, agents, table: [fuse(ROOT)], unseen })
  expect(await agent.run(linked)).toMatchObject({ state: 'ok', found: expect.stringContaining('process 7') })
  expect(await propagation.run(linked)).toMatchObject({ state: 'problem' })
})

test('a mount that engines do not see is a problem, no mount is none', async () => {
  const unseen = async () => '/var is not shared'
  expect(await propagation.run(needs({ unseen }))).toMatchObject({
    state: 'ok',
    found: expect.stringContaining('nothing'),
  })
  const table = [fuse(ROOT)]
  expect(await propagation.run(needs({ table }))).toMatchObject({ state: 'ok' })
  expect(summary(await propagation.run(needs({ table, unseen })))).toEqual({
    state: 'problem',
    text: expect.stringMatching(/not shared.*PrivateMounts/),
  })
})

const DEAD: SeenFile = { ...DIRECTORY, kind: 'dead' }
const CLOSED: SeenFile = { ...DIRECTORY, kind: 'closed' }
const HUNG: SeenFile = { ...DIRECTORY, kind: 'hung' }

test.each<[string, MountEntry[], Record<string, SeenFile>, string, RegExp]>([
  ['none', [entry('/x', 'ext4', '/dev/vda')], {}, 'ok', /^0 of lazylayer/],
  [
    'a living store',
    [fuse(ROOT), erofs(`${ROOT}/layers/a/diff`)],
    { [ROOT]: DIRECTORY },
    'ok',
    /^2 of lazylayer, none dead/,
  ],
  ['a dead store', [fuse(ROOT)], { [ROOT]: DEAD }, 'problem', /dead: \/var\/lib\/s\..*umount -l \/var\/lib\/s\./],
  [
    'a dead store with EROFS on it',
    [fuse(ROOT), erofs(`${ROOT}/a`)],
    { [ROOT]: DEAD },
    'problem',
    /umount -l \/var\/lib\/s\/a \/var\/lib\/s\./,
  ],
  ['a living image', [fuse(devices('/m')), erofs('/m')], { [devices('/m')]: DIRECTORY }, 'ok', /none dead/],
  ['an image of another user', [fuse(devices('/m')), erofs('/m')], { [devices('/m')]: CLOSED }, 'ok', /none dead/],
  ['an image whose devices are gone', [erofs('/m')], {}, 'problem', /dead: \/m\./],
  [
    'an image whose devices are dead',
    [fuse(devices('/m')), erofs('/m')],
    { [devices('/m')]: DEAD },
    'problem',
    /dead: .*\/m\./,
  ],
  [
    'an image beside another one',
    [fuse(devices('/n')), erofs('/m')],
    { [devices('/n')]: DIRECTORY },
    'problem',
    /dead: \/m\./,
  ],
  ['somebody else’s EROFS', [entry('/m', 'erofs', '/dev/loop0')], {}, 'ok', /^0 of lazylayer/],
  [
    'a store that hangs',
    [fuse(ROOT)],
    { [ROOT]: HUNG },
    'problem',
    /not answering: \/var\/lib\/s\. lazylayer status says/,
  ],
])('mounts: %s', async (_, table, seen, state, text) => {
  expect(summary(await deadMounts.run(needs({ table, seen })))).toEqual({ state, text: expect.stringMatching(text) })
})
