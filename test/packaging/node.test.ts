// packaging/image/lazylayer-node on a node of folders and recorded commands: what it writes, and in which order it does what.
import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'

const SCRIPT = fileURLToPath(new URL('../../packaging/image/lazylayer-node', import.meta.url))
const SERVICE = fileURLToPath(new URL('../../packaging/lazylayer.service', import.meta.url))

/** Stands for the node: records each command, and answers those that the script looks at. */
const NSENTER = `#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift
[ "$1" != env ] || shift 2
echo "$*" >>"$RECORD"
case $* in
'systemctl is-active'*) [ -e "$HOST/active" ] ;;
'systemctl enable --now'*) touch "$HOST/active" ;;
'systemctl disable --now'*) rm -f "$HOST/active" ;;
'systemctl show'*) echo 42 ;;
'readlink /proc/42/exe') cat "$HOST/running" 2>/dev/null ;;
'lazylayer setup'*) if [ -e "$HOST/configured" ]; then echo nothing to change; else echo wrote /etc/containerd/config.toml; fi ;;
esac
`

let work: string

beforeEach(async () => {
  work = await mkdtemp(join(tmpdir(), 'lazylayer-node-'))
  await mkdir(join(work, 'bin'))
  await mkdir(join(work, 'host'))
  await writeFile(join(work, 'bin/nsenter'), NSENTER, { mode: 0o755 })
})
afterEach(() => rm(work, { recursive: true, force: true }))

async function image(version: string): Promise<void> {
  const dir = join(work, 'image')
  await rm(dir, { recursive: true, force: true })
  await mkdir(join(dir, 'bin'), { recursive: true })
  await writeFile(join(dir, 'version'), `${version}\n`)
  await writeFile(join(dir, 'bin/lazylayer'), '')
  await writeFile(join(dir, 'lazylayer.service'), await readFile(SERVICE))
}

interface Outcome {
  code: number | null
  said: string
  commands: string[]
}

async function node(command: string, env: Record<string, string> = {}): Promise<Outcome> {
  const record = join(work, 'record')
  await rm(record, { force: true })
  const { promise, resolve } = Promise.withResolvers<number | null>()
  const child = spawn('sh', [SCRIPT, command], {
    env: {
      PATH: `${join(work, 'bin')}:${process.env.PATH}`,
      HOST: join(work, 'host'),
      LAZYLAYER_IMAGE: join(work, 'image'),
      RECORD: record,
      ENGINE: 'containerd',
      SERVE: '--metrics 9811',
      ...env,
    },
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (said += text))
  child.on('close', resolve)
  const code = await promise
  const commands = (await readFile(record, 'utf8').catch(() => '')).split('\n').filter((line) => line !== '')
  return { code, said, commands }
}

const onHost = (path: string) => join(work, 'host', path)
/** What changes something. */
const changes = ({ commands }: Outcome) =>
  commands.filter((each) => /^(systemctl (enable|disable|restart)|lazylayer)/.test(each))

test('a node gets the program, the unit and the flags, the agent before the engine is told of it', async () => {
  await image('1-a')
  const outcome = await node('install')
  expect([outcome.code, outcome.said]).toEqual([0, expect.stringContaining('1-a runs')])
  expect(changes(outcome)).toEqual([
    'systemctl enable --now lazylayer.service',
    'lazylayer setup containerd',
    'systemctl restart containerd.service',
  ])
  expect(await readlink(onHost('opt/lazylayer'))).toBe('lazylayer-1-a')
  const unit = await readFile(onHost('etc/systemd/system/lazylayer.service'), 'utf8')
  expect(unit).toContain('ExecStart=/opt/lazylayer/bin/lazylayer serve')
  expect(unit).not.toContain('/usr/bin/lazylayer')
  expect(await readFile(onHost('etc/default/lazylayer'), 'utf8')).toContain('LAZYLAYER_SERVE="--metrics 9811"\n')
})

test('the same again changes nothing, and restarts nobody', async () => {
  await image('1-a')
  await node('install')
  await writeFile(onHost('configured'), '')
  await writeFile(onHost('running'), '/opt/lazylayer-1-a/native/lazylayer-keeper\n')
  const outcome = await node('install')
  expect([outcome.code, outcome.said]).toEqual([0, expect.stringContaining('1-a is there already')])
  expect(changes(outcome)).toEqual(['lazylayer setup containerd'])
})

test('another version waits for the agent to be restarted, whose own version stays until then', async () => {
  await image('1-a')
  await node('install')
  await writeFile(onHost('configured'), '')
  await writeFile(onHost('running'), '/opt/lazylayer-1-a/bin/node\n')
  await image('2-b')
  const outcome = await node('install')
  expect(outcome.said).toContain('2-b is installed; the agent that runs goes on')
  expect(changes(outcome)).toEqual(['lazylayer setup containerd'])
  expect(await readlink(onHost('opt/lazylayer'))).toBe('lazylayer-2-b')
  expect((await readdir(onHost('opt'))).sort()).toEqual(['lazylayer', 'lazylayer-1-a', 'lazylayer-2-b'])
  await writeFile(onHost('running'), '/opt/lazylayer-2-b/bin/node\n')
  await node('install')
  expect((await readdir(onHost('opt'))).sort()).toEqual(['lazylayer', 'lazylayer-2-b'])
})

test('one that waits is taken when that is asked for later', async () => {
  await image('1-a')
  await node('install')
  await writeFile(onHost('configured'), '')
  await writeFile(onHost('running'), '/opt/lazylayer-1-a/bin/node\n')
  await image('2-b')
  await node('install')
  expect((await node('install')).said).toContain('2-b is installed; the agent that runs goes on')
  expect(changes(await node('install', { RESTART: 'yes' }))).toEqual([
    'systemctl restart lazylayer.service',
    'lazylayer setup containerd',
  ])
})

test('it is restarted at once where that was asked for, also for other flags', async () => {
  await image('1-a')
  await node('install')
  await writeFile(onHost('configured'), '')
  const outcome = await node('install', { RESTART: 'yes', SERVE: '--metrics 9812' })
  expect(changes(outcome)).toEqual(['systemctl restart lazylayer.service', 'lazylayer setup containerd'])
})

test('undone, the engine is told first, and the cache stays unless it is to go', async () => {
  await image('1-a')
  await node('install')
  await mkdir(onHost('var/lib/lazylayer/cache'), { recursive: true })
  const outcome = await node('undo')
  expect(outcome.code).toBe(0)
  expect(changes(outcome)).toEqual([
    'lazylayer setup containerd --undo',
    'systemctl restart containerd.service',
    'systemctl disable --now lazylayer.service',
  ])
  expect(await readdir(onHost('opt'))).toEqual([])
  expect(await readdir(onHost('etc/systemd/system'))).toEqual([])
  expect(await readdir(onHost('etc/default'))).toEqual([])
  expect(await readdir(onHost('var/lib/lazylayer'))).toEqual(['cache'])
  expect((await node('undo', { PURGE: 'yes' })).code).toBe(0)
  expect(await readdir(onHost('var/lib'))).toEqual([])
})

test('a unit of somebody else, and an engine that is not known, stop it before it does anything', async () => {
  await image('1-a')
  expect(await node('install', { ENGINE: 'docker' })).toMatchObject({
    code: 1,
    said: expect.stringContaining('ENGINE is docker'),
  })
  await mkdir(onHost('etc/systemd/system'), { recursive: true })
  await writeFile(onHost('etc/systemd/system/lazylayer.service'), '[Unit]\n')
  const outcome = await node('install')
  expect([outcome.code, changes(outcome)]).toEqual([1, []])
  expect(outcome.said).toContain('was made by somebody else')
  expect(await readdir(onHost('.'))).toEqual(['etc'])
})
