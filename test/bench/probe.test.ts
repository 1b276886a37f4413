import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, test as anyTest, beforeAll, expect } from 'vitest'
import { compileProbe, type Probe } from '../../bench/probe.ts'
import { noise, writeTree } from '../../bench/tree.ts'

const hasCompiler = spawnSync('cc', ['--version']).status === 0
const test = hasCompiler ? anyTest : anyTest.skip
const note = hasCompiler ? '' : ' (not installed: cc (package gcc))'

let dir = ''
let probe: Probe
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lazylayer-probe-'))
  if (hasCompiler) probe = await compileProbe(dir)
})
afterAll(() => rm(dir, { recursive: true, force: true }))

test(`a walk counts every entry and follows no link; reading counts every byte${note}`, async () => {
  const tree = join(dir, 'tree')
  await mkdir(join(tree, 'a/b/c'), { recursive: true })
  await writeFile(join(tree, 'a/b/c/file'), noise('file', 70_001))
  await writeFile(join(tree, '.hidden'), 'x')
  await writeFile(join(tree, 'a/empty'), '')
  await symlink('..', join(tree, 'a/up'))
  expect(await probe.tree('walk', tree)).toMatchObject({ entries: 7, files: 0, bytes: 0 })
  const read = await probe.tree('readall', tree)
  expect(read).toMatchObject({ entries: 7, files: 3, bytes: 70_002 })
  expect(read.seconds).toBeGreaterThan(0)
})

test(`a list reads what it names, and fails for what is missing${note}`, async () => {
  const tree = join(dir, 'listed')
  const [first = '', , third = ''] = await writeTree(tree, {
    directories: 2,
    filesEach: 2,
    fileMinBytes: 100,
    fileMaxBytes: 100,
  })
  const list = join(dir, 'list')
  await writeFile(list, `${first}\n${third}\n`)
  expect(await probe.list(probe.path, tree, list)).toMatchObject({ files: 2, bytes: 200 })
  await writeFile(list, 'd0/none\n')
  await expect(probe.list(probe.path, tree, list)).rejects.toThrow('d0/none')
})

test(`a sequential read takes the fastest pass over the whole file, with its pages in memory${note}`, async () => {
  const file = join(dir, 'large')
  await writeFile(file, noise('large', 3_000_001), { flush: true })
  expect(await probe.sequential(file, 128 << 10, 3, 'keep')).toMatchObject({ bytes: 3_000_001, resident: 1 })
})

test(`pages of a file and of those below it are given back before each pass, and counted${note}`, async () => {
  const [file, below] = [join(dir, 'own'), join(dir, 'below')]
  for (const each of [file, below]) await writeFile(each, noise(each, 1 << 20), { flush: true })
  expect(await probe.pages('resident', [file, below])).toBe(2 << 20)
  expect(await probe.sequential(file, 128 << 10, 2, 'drop', [below])).toMatchObject({ bytes: 1 << 20, resident: 0 })
  expect(await probe.pages('resident', [below])).toBe(0)
  expect(await probe.pages('forget', [file])).toBe(0)
})

test(`a fault brings in the page that it touches${note}`, async () => {
  const file = join(dir, 'mapped')
  await writeFile(file, noise('mapped', 16 << 20), { flush: true })
  expect(await probe.pages('forget', [file])).toBe(0)
  await probe.fault(file, 8 << 20)
  const bytes = await probe.pages('resident', [file])
  expect(bytes).toBeGreaterThanOrEqual(4096)
  expect(bytes).toBeLessThan(16 << 20)
  await expect(probe.fault(file, 16 << 20)).rejects.toThrow('offset')
})

anyTest('a tree is the same each time, and its bytes differ from file to file', () => {
  expect(noise('a', 64)).toEqual(noise('a', 64))
  expect(noise('a', 64)).not.toEqual(noise('b', 64))
})
