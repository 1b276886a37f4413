import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { stateDirectory } from '../../src/agent/places.ts'
import { sealKey } from '../../src/agent/seal-key.ts'

async function makeFolder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'lazylayer-key-'))
  onTestFinished(() => rm(dir, { recursive: true }))
  return dir
}

test('a key is made at its first use, for this user only, and used from then on', async () => {
  const dir = await makeFolder()
  const [state, cache] = [join(dir, 'a/state'), join(dir, 'cache')]
  const [one, other] = await Promise.all([sealKey({}, state, cache), sealKey({}, state, cache)])
  expect(one).toHaveLength(32)
  expect(other).toEqual(one)
  expect(await sealKey({}, state, cache)).toEqual(one)
  expect(await readdir(state)).toEqual(['credentials.key'])
  expect((await stat(join(state, 'credentials.key'))).mode & 0o777).toBe(0o600)
  expect(await sealKey({}, join(dir, 'b'), cache)).not.toEqual(one)
})

test("systemd's credential comes first, and then no file is made", async () => {
  const dir = await makeFolder()
  const key = 'k'.repeat(64)
  await writeFile(join(dir, 'lazylayer-key'), key, { mode: 0o440 })
  const state = join(dir, 'state')
  expect(Buffer.from(await sealKey({ CREDENTIALS_DIRECTORY: dir }, state, join(dir, 'cache'))).toString()).toBe(key)
  expect(await readdir(dir)).toEqual(['lazylayer-key'])
  await rm(join(dir, 'lazylayer-key'))
  expect(await sealKey({ CREDENTIALS_DIRECTORY: dir }, state, join(dir, 'cache'))).toHaveLength(32)
})

test('a key that others may read, that is too short or too long, or that is no file, is refused', async () => {
  const state = await makeFolder()
  const path = join(state, 'credentials.key')
  const refused = () =>
    expect(sealKey({}, state, join(state, 'cache'))).rejects.toMatchObject({
      code: 'usage',
      message: expect.stringContaining(path),
    })
  for (const size of [0, 31, 4097]) {
    await writeFile(path, new Uint8Array(size), { mode: 0o600 })
    await refused()
  }
  await writeFile(path, new Uint8Array(32))
  for (const mode of [0o640, 0o604, 0o666]) {
    await chmod(path, mode)
    await refused()
  }
  await rm(path)
  await mkdir(path)
  await refused()
})

test('a key does not lie in the cache, whichever name that has', async () => {
  const dir = await makeFolder()
  await mkdir(join(dir, 'state'))
  await symlink(dir, `${dir}-link`)
  onTestFinished(() => rm(`${dir}-link`))
  for (const cache of [dir, join(dir, 'state'), `${dir}-link`]) {
    await expect(sealKey({}, join(dir, 'state'), cache)).rejects.toMatchObject({ code: 'usage' })
  }
  expect(await readdir(join(dir, 'state'))).toEqual([])
  await sealKey({}, join(dir, 'state'), join(dir, 'state/cache'))
  expect(await readFile(join(dir, 'state/credentials.key'))).toHaveLength(32)
})

test('state lies where systemd has it, or where a user has its own', () => {
  expect(stateDirectory({ STATE_DIRECTORY: '/s:/t' }, 0)).toBe('/s')
  expect(stateDirectory({ XDG_STATE_HOME: '/x' }, 0)).toBe('/var/lib/lazylayer')
  expect(stateDirectory({ XDG_STATE_HOME: '/x' }, 7)).toBe('/x/lazylayer')
  expect(stateDirectory({ XDG_STATE_HOME: 'x' }, 7)).toMatch(/\/\.local\/state\/lazylayer$/)
})
