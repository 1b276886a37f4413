import { execFileSync } from 'node:child_process'
import { copyFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { folder } from '../store/folder.ts'

const LOAD = fileURLToPath(new URL('../../src/cli/load.js', import.meta.url))
const BUILD = 'ab'.repeat(32)

/** A package of one entry, which calls a function of a chunk. */
async function makePackage(build = BUILD) {
  const root = await folder()
  for (const dir of ['src/cli', 'dist/cli', 'dist/chunks']) await mkdir(join(root, dir), { recursive: true })
  await copyFile(LOAD, join(root, 'src/cli/load.js'))
  await writeFile(join(root, 'package.json'), '{"type":"module"}')
  await writeFile(join(root, 'dist/build'), build)
  await writeFile(
    join(root, 'dist/cli/main.js'),
    `import { load } from '../../src/cli/load.js'\nconst { main } = load('cli/main')\nmain()\n`,
  )
  await writeFile(
    join(root, 'dist/cli/main.cjs'),
    `const { calledLater } = require('../chunks/some.cjs')\nexports.main = () => console.log(calledLater(), __url)`,
  )
  await writeFile(
    join(root, 'dist/chunks/some.cjs'),
    `const { join } = require('node:path')\nexports.calledLater = function calledLater() { return join('a', 'b') }`,
  )
  return root
}

/** What it prints, and how often V8 compiled the function. */
async function run(root: string) {
  const log = join(root, 'v8.log')
  const flags = ['--log-function-events', `--logfile=${log}`, '--no-logfile-per-isolate']
  const printed = execFileSync(process.execPath, [...flags, join(root, 'dist/cli/main.js')], { encoding: 'utf8' })
  const compiled = (await readFile(log, 'latin1')).match(/^function,interpreter,.*,calledLater$/gm) ?? []
  return { printed, compiled: compiled.length }
}

async function keptFiles(root: string): Promise<string[]> {
  const code = join(root, '.cache/code')
  const all = await readdir(code, { recursive: true, encoding: 'utf8' })
  return all.filter((path) => path.endsWith('.cjs')).map((path) => join(code, path))
}

test('a function that an earlier process called is not compiled again', async () => {
  const root = await makePackage()
  const first = await run(root)
  expect(first.printed).toBe(`a/b file://${root}/dist/cli/main.cjs\n`)
  expect(first.compiled).toBe(1)
  expect(await keptFiles(root)).toHaveLength(2)
  expect(await run(root)).toEqual({ printed: first.printed, compiled: 0 })
})

test('of another build, with the same length, nothing is taken', async () => {
  const root = await makePackage()
  await run(root)
  await writeFile(join(root, 'dist/build'), 'cd'.repeat(32))
  const chunk = join(root, 'dist/chunks/some.cjs')
  await writeFile(chunk, (await readFile(chunk, 'utf8')).replace("'b'", "'c'"))
  const { printed, compiled } = await run(root)
  expect(printed).toMatch(/^a\/c /)
  expect(compiled).toBe(1)
  expect((await run(root)).compiled).toBe(0)
})

test.each([
  ['is cut off', (bytes: Buffer) => bytes.subarray(0, bytes.length / 2)],
  ['is empty', () => Buffer.alloc(0)],
  ['is zeros', (bytes: Buffer) => Buffer.alloc(bytes.length)],
  ['ends in zeros', (bytes: Buffer) => Buffer.from(bytes).fill(0, bytes.length / 2)],
  ['has another bit', (bytes: Buffer) => Buffer.concat([bytes.subarray(0, -1), Buffer.of((bytes.at(-1) ?? 0) ^ 1)])],
])('what was kept and %s is made anew', async (_, damage) => {
  const root = await makePackage()
  const { printed } = await run(root)
  for (const file of await keptFiles(root)) await writeFile(file, damage(await readFile(file)))
  expect(await run(root)).toEqual({ printed, compiled: 1 })
  expect(await run(root)).toEqual({ printed, compiled: 0 })
})

test('where nothing can be kept it runs all the same', async () => {
  const root = await makePackage()
  await writeFile(join(root, '.cache'), 'a file')
  const { printed } = await run(root)
  expect(printed).toMatch(/^a\/b /)
  expect((await run(root)).printed).toBe(printed)
})
