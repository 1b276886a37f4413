// The launcher, copied beside a main of the test's own: which Node runs it, under what, and what comes out.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'

const LAUNCHER = fileURLToPath(new URL('../../src/cli/lazylayer.js', import.meta.url))
const MAIN = `
export async function main(argv: string[]): Promise<number> {
  const signal = new Promise((resolve) => process.once('SIGTERM', resolve))
  console.log(JSON.stringify({ argv, kept: 'KEEPER' in process.env, node: process.versions.node }))
  if (argv.includes('wait')) {
    const beat = setInterval(() => {}, 1000)
    console.log(await signal)
    clearInterval(beat)
  }
  return 3
}
`
// Says that this Node is an old one, to the launcher alone: what it starts gets no such option.
const OLD = ['--import', `data:text/javascript,Object.defineProperty(process,'versions',{value:{node:'20.20.2'}})`]

let root: string

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'lazy-cli-'))
  await mkdir(join(root, 'src/cli'), { recursive: true })
  await mkdir(join(root, 'native'))
  await installLauncher(root)
  await writeFile(join(root, 'src/cli/main.ts'), MAIN)
  await writeFile(join(root, 'package.json'), '{"type":"module"}')
})

afterEach(() => rm(root, { recursive: true }))

async function installLauncher(at: string): Promise<void> {
  for (const file of ['lazylayer.js', 'agent-flags.js'])
    await copyFile(join(dirname(LAUNCHER), file), join(at, 'src/cli', file))
}

/** A package that holds the Node that runs this test, as node_modules would. */
async function packageNode(): Promise<void> {
  const folder = join(root, `node_modules/node-linux-${process.arch}`)
  await mkdir(join(folder, 'bin'), { recursive: true })
  await writeFile(join(folder, 'package.json'), '{}')
  await symlink(process.execPath, join(folder, 'bin/node'))
}

async function buildKeeper(): Promise<void> {
  const keeper = join(root, 'native/lazylayer-keeper')
  await writeFile(keeper, '#!/bin/sh\necho keeper\nKEEPER=1 exec "$@"\n')
  await chmod(keeper, 0o755)
}

function launch(args: string[], nodeOptions: string[] = []) {
  const child = spawn(process.execPath, [...nodeOptions, join(root, 'src/cli/lazylayer.js'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {},
  })
  const printed = { stdout: '', stderr: '' }
  child.stdout.on('data', (text) => {
    printed.stdout += text
  })
  child.stderr.on('data', (text) => {
    printed.stderr += text
  })
  return { child, printed, ended: once(child, 'close').then(([code]) => ({ code, ...printed })) }
}

test('a command runs main with its arguments, and its number is the exit code', async () => {
  const { code, stdout } = await launch(['ls', 'x y']).ended
  expect({ code, ...JSON.parse(stdout) }).toMatchObject({ code: 3, argv: ['ls', 'x y'], kept: false })
})

test('an old Node hands over to the packaged one, with arguments and exit code', async () => {
  await packageNode()
  const { code, stdout } = await launch(['ls', 'x'], OLD).ended
  expect({ code, ...JSON.parse(stdout) }).toMatchObject({ code: 3, argv: ['ls', 'x'], node: process.versions.node })
})

test('an old Node without the package says what, why and what to do', async () => {
  const { code, stdout, stderr } = await launch(['ls'], OLD).ended
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr.trimEnd().split('\n')).toEqual([
    'lazylayer needs Node 22.19 or newer',
    `this is Node 20.20.2, and the optional package node-linux-${process.arch} is not installed`,
    `run npm ci in ${root}, or use a newer Node`,
  ])
})

test('an old Node passes SIGTERM on and ends as the agent does', async () => {
  await packageNode()
  const { child, ended } = launch(['ls', 'wait'], OLD)
  await once(child.stdout, 'data') // main is there, and waits
  child.kill('SIGTERM')
  expect(await ended).toMatchObject({ code: 3, stdout: expect.stringContaining('SIGTERM') })
})

for (const command of ['mount', 'serve']) {
  test(`${command} runs under the keeper, once`, async () => {
    await buildKeeper()
    const { code, stdout } = await launch([command, 'x']).ended
    const [first, second, ...more] = stdout.trimEnd().split('\n')
    expect({ code, first, more }).toEqual({ code: 3, first: 'keeper', more: [] })
    expect(JSON.parse(second ?? '')).toMatchObject({ argv: [command, 'x'], kept: true })
  })
}

test('mount runs without a keeper where none was built', async () => {
  const { code, stdout } = await launch(['mount']).ended
  expect({ code, ...JSON.parse(stdout) }).toMatchObject({ code: 3, kept: false })
})

test.each([[['ls']], [['mount', '--detach']], [['mount', '-d']], [['serve', '--help']]])(
  '%j needs no keeper',
  async (args) => {
    await buildKeeper()
    expect(JSON.parse((await launch(args).ended).stdout)).toMatchObject({ kept: false })
  },
)

test('an installed package runs what it was built into, since Node strips no types there', async () => {
  const installed = join(root, 'node_modules/lazylayer')
  await mkdir(join(installed, 'src/cli'), { recursive: true })
  await mkdir(join(installed, 'dist/cli'), { recursive: true })
  await installLauncher(installed)
  await writeFile(join(installed, 'package.json'), '{"type":"module"}')
  await writeFile(join(installed, 'src/cli/main.ts'), MAIN)
  await writeFile(join(installed, 'dist/cli/main.js'), 'export const main = async () => 5')
  const child = spawn(process.execPath, [join(installed, 'src/cli/lazylayer.js'), 'ls'], { stdio: 'ignore' })
  expect((await once(child, 'exit'))[0]).toBe(5)
})

test('an installed package is not repaired by npm ci', async () => {
  const installed = join(root, 'node_modules/lazylayer')
  await mkdir(join(installed, 'src/cli'), { recursive: true })
  await installLauncher(installed)
  await writeFile(join(installed, 'package.json'), '{"type":"module"}')
  const child = spawn(process.execPath, [...OLD, join(installed, 'src/cli/lazylayer.js'), 'ls'])
  let said = ''
  child.stderr.on('data', (text) => {
    said += text
  })
  expect((await once(child, 'close'))[0]).toBe(1)
  expect(said.trimEnd().split('\n')[2]).toBe('install lazylayer again, with its optional packages, or use a newer Node')
})
