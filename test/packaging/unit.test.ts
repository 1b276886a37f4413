// The systemd unit: what must hold of it for engines to see the mount, and that what it starts exists.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { defaultPlaces } from '../../src/agent/agent-places.ts'
import { parseCommandLine } from '../../src/cli/flags.ts'
import { folder } from '../store/folder.ts'

const UNIT = fileURLToPath(new URL('../../packaging/lazylayer.service', import.meta.url))

const settings = (await readFile(UNIT, 'utf8'))
  .split('\n')
  .filter((line) => /^[A-Z]\w*=/.test(line))
  .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const)
const all = (key: string) => settings.filter(([name]) => name === key).map(([, value]) => value)

test('nothing gives the agent a mount namespace of its own', () => {
  const names = settings.map(([name]) => name)
  const own =
    /^(Private|Protect(System|Home|Kernel|Control|Proc)|ReadOnly|ReadWrite|Inaccessible|Bind|TemporaryFile|Root(Dir|Image)|MountFlags|DynamicUser)/
  expect(names.filter((name) => own.test(name))).toEqual([])
})

const ANALYZE = '/usr/bin/systemd-analyze'

test.skipIf(!existsSync(ANALYZE))(`systemd finds nothing wrong with it (needs ${ANALYZE})`, async () => {
  const copy = join(await folder(), 'lazylayer.service')
  // what is not installed here cannot be started
  await writeFile(copy, (await readFile(UNIT, 'utf8')).replaceAll('/usr/bin/lazylayer', '/bin/true'))
  const { stdout, stderr } = await promisify(execFile)(ANALYZE, ['verify', '--man=no', copy])
  expect(stdout + stderr).toBe('')
})

test('nobody else gets to the store, nor to the sockets', () => {
  expect(all('StateDirectoryMode')).toEqual(['0700'])
  expect(all('RuntimeDirectoryMode')).toEqual(['0700'])
})

test('engines are behind it, and it is stopped in order', () => {
  expect(all('Before').join(' ').split(' ')).toEqual(expect.arrayContaining(['crio.service', 'podman.socket']))
  expect(all('KillMode')).toEqual(['mixed'])
  expect(all('Type')).toEqual(['notify'])
  expect(Number(all('WatchdogSec')[0])).toBeGreaterThan(0)
  expect(Number(all('TimeoutStopSec')[0])).toBeGreaterThan(0)
})

test('an agent that the kernel kills does not end the keeper, and what that holds is stored', () => {
  expect(all('OOMPolicy')).toEqual(['continue'])
  expect(all('NotifyAccess')).toEqual(['all']) // the keeper is not always the main process
  expect(Number(all('FileDescriptorStoreMax')[0])).toBeGreaterThanOrEqual(3)
})

test('what it starts are commands that there are, on the directory where they look by themselves', () => {
  const commands = [...all('ExecStart'), ...all('ExecReload')].flatMap((each) =>
    [...each.matchAll(/\/usr\/bin\/lazylayer ([^>;'$]+)/g)].map(([, args]) => (args as string).trim().split(' ')),
  )
  expect(commands.map(([name]) => name)).toEqual(['serve', 'upgrade'])
  for (const argv of commands) {
    expect(parseCommandLine(argv)).toMatchObject({ positionals: [defaultPlaces({}, 0).root] })
    expect(defaultPlaces({ STATE_DIRECTORY: `/var/lib/${all('StateDirectory')[0]}` }, 0).root).toBe(argv[1])
  }
})

test('flags come from a file of the administrator, and its example is right', async () => {
  expect(all('EnvironmentFile')).toEqual(['-/etc/default/lazylayer']) // it need not be there
  expect(all('ExecStart')[0]).toMatch(/ \$LAZYLAYER_SERVE$/) // without braces systemd splits it into words
  const [, flags = ''] = /^# .*LAZYLAYER_SERVE="(.*)"$/m.exec(await readFile(UNIT, 'utf8')) ?? []
  expect(parseCommandLine(['serve', ...flags.split(' ')])).toMatchObject({ values: { metrics: '9811' } })
})
