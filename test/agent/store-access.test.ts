import { chmod, mkdir, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { setAccess, storeMode } from '../../src/agent/store-access.ts'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lazylayer-access-'))
})
afterEach(() => rm(dir, { recursive: true }))

const modeOf = async (path: string) => (await stat(path)).mode & 0o7777

test.each([
  [undefined, 0o700],
  ['0700', 0o700],
  ['700', 0o700],
  ['0755', 0o755],
  ['0750', 0o750],
  ['711', 0o711],
])('--store-mode %s is %o', (text, mode) => {
  expect(storeMode(text)).toBe(mode)
})

test.each([
  ['', /is no mode/],
  ['0o755', /is no mode/],
  ['u=rwx', /is no mode/],
  ['75', /is no mode/],
  ['4755', /is no mode/],
  ['1777', /is no mode/],
  ['0789', /is no mode/],
  ['-755', /is no mode/],
  ['0755 ', /is no mode/],
  ['0055', /closes the store to its own agent/],
  ['0655', /closes the store to its own agent/],
  ['0777', /lets other users replace/],
  ['0775', /lets other users replace/],
])('--store-mode %j is refused', (text, why) => {
  expect(() => storeMode(text)).toThrow(why)
})

async function made(above: number, root: number): Promise<{ above: string; root: string }> {
  const at = { above: join(dir, 'above'), root: join(dir, 'above/store') }
  await mkdir(at.root, { recursive: true })
  await chmod(at.root, root)
  await chmod(at.above, above)
  return at
}

test('the store is closed whatever it was; what is above it only where that is ours', async () => {
  const { above, root } = await made(0o755, 0o755)
  expect(await setAccess(root, 0o700, '/elsewhere/store')).toBe(undefined)
  expect([await modeOf(above), await modeOf(root)]).toEqual([0o755, 0o700])
  expect(await setAccess(root, 0o700, root)).toBe(undefined)
  expect([await modeOf(above), await modeOf(root)]).toEqual([0o700, 0o700])
})

test('where it is widened, what is not ours keeps its mode, and is named if it is closed', async () => {
  const { above, root } = await made(0o700, 0o700)
  expect(await setAccess(root, 0o755, '/elsewhere/store')).toBe(above)
  expect([await modeOf(above), await modeOf(root)]).toEqual([0o700, 0o755])
  await setAccess(root, 0o755, root)
  expect([await modeOf(above), await modeOf(root)]).toEqual([0o755, 0o755])
})
