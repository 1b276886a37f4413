import fs from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { Folders, type Owner } from '../../src/snapshotter/folders.ts'

const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0]
const usual: Owner = { uid, gid, mode: 0o755 }

let home: string
let dir: string
const said: string[] = []

beforeEach(async () => {
  home = await fs.mkdtemp(join(tmpdir(), 'folders-'))
  dir = join(home, 'snapshots')
  said.length = 0
})
afterEach(async () => {
  for (const each of opened.splice(0)) await each.settled()
  await fs.rm(home, { recursive: true })
})

const opened: Folders[] = []
async function open(): Promise<Folders> {
  const folders = await Folders.open(
    dir,
    () => true,
    'is removed',
    (message) => said.push(message),
  )
  opened.push(folders)
  return folders
}

async function shown(id: number) {
  const modes = ['', 'fs', 'work'].map(async (name) => (await fs.stat(join(dir, String(id), name))).mode & 0o7777)
  return { modes: await Promise.all(modes), inside: await fs.readdir(join(dir, String(id), 'fs')) }
}

/** Until the directory of the next snapshot is made ahead. */
const isAhead = () =>
  expect.poll(() => fs.stat(join(home, 'snapshots.next/fs')).then(({ mode }) => mode & 0o7777)).toBe(usual.mode)

describe("a snapshot's directory", () => {
  test('is the same whether it was made ahead, or for one of many at once', async () => {
    const folders = await open()
    const ids = Array.from({ length: 20 }, (_, i) => i + 1)
    await Promise.all(ids.map((id) => folders.make(id, Promise.resolve(usual))))
    await isAhead()
    await folders.make(21, Promise.resolve(usual))
    for (const id of [...ids, 21]) expect(await shown(id)).toEqual({ modes: [0o711, 0o755, 0o711], inside: [] })
  })

  test.each([0o1777, 0o700, 0o2755])('has the mode %o of its image, whatever the one made ahead has', async (mode) => {
    const folders = await open()
    await isAhead()
    await folders.make(1, Promise.resolve({ ...usual, mode }))
    expect((await shown(1)).modes[1]).toBe(mode)
  })

  test.skipIf(uid !== 0)('belongs to whom it is given, set-group-ID among its bits (needs root)', async () => {
    const folders = await open()
    await isAhead()
    await folders.make(1, Promise.resolve({ uid: 1000, gid: 1001, mode: 0o2750 }))
    const found = await fs.stat(join(dir, '1/fs'))
    expect([found.uid, found.gid, found.mode & 0o7777]).toEqual([1000, 1001, 0o2750])
  })

  test('shows nothing of what an earlier process left', async () => {
    await fs.mkdir(join(home, 'snapshots.next/fs'), { recursive: true })
    await fs.writeFile(join(home, 'snapshots.next/fs/left'), 'left')
    const folders = await open()
    await folders.make(1, Promise.resolve(usual))
    expect((await shown(1)).inside).toEqual([])
  })

  test('is made also when somebody has removed the one made ahead', async () => {
    const folders = await open()
    await isAhead()
    await fs.rm(join(home, 'snapshots.next'), { recursive: true })
    await folders.make(1, Promise.resolve(usual))
    await isAhead()
    await folders.make(2, Promise.resolve(usual))
    expect(await fs.readdir(dir)).toEqual(['1', '2'])
  })

  test('is no snapshot’s where something lies in its place, which stays', async () => {
    const folders = await open()
    await isAhead()
    await fs.mkdir(join(dir, '1/fs'), { recursive: true })
    await fs.writeFile(join(dir, '1/fs/kept'), 'kept')
    await expect(folders.make(1, Promise.resolve(usual))).rejects.toMatchObject({ code: 'system' })
    expect(await fs.readdir(join(dir, '1/fs'))).toEqual(['kept'])
  })

  test('is not left where nobody can say whose it is', async () => {
    const folders = await open()
    const refused = Failure.unavailable('the layer below is not shown')
    await expect(folders.make(1, Promise.reject(refused))).rejects.toBe(refused)
    await folders.settled()
    expect(await fs.readdir(dir)).toEqual([])
    expect(said).toEqual([])
  })
})
