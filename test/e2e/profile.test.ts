// What a start reads is learned, and has the next one's bytes fetched before anybody asks: on the same node, and on others by way of the registry.
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { noise } from '../../bench/tree.ts'
import { folderEntries } from '../../src/build/folder.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import { PushedLayout } from '../fake/pushed-layout.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Uploads } from '../fake/uploads.ts'
import { type Agent, lazylayer, startAgent } from './agent.ts'
import { succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

/** Small files side by side: the kernel reads the device far ahead of who reads them one after the other. */
const FILES = 400
const FILE_BYTES = 10 << 10
const name = (i: number) => `file-${String(i).padStart(3, '0')}`
const READ = [300, ...Array.from({ length: 40 }, (_, i) => 100 + i), 7].map(name)

suite('profiles', lacking(['mount']), () => {
  let work: WorkDirectory
  let registry: FakeRegistry
  let image: string
  const flags = (cache: string) => ['--cache', join(work.path, cache), '--tls-verify=false']

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const [source, layout] = [join(work.path, 'tree'), join(work.path, 'layout')]
    await mkdir(source)
    await mkdir(layout)
    for (let i = 0; i < FILES; i++) await writeFile(join(source, name(i)), noise(name(i), FILE_BYTES))
    const layers = [{ kind: 'estargz' as const, entries: folderEntries(source), options: { level: 1 } }]
    await writeImage({ dir: layout, tag: 'one', layers })
    const shelf = new PushedLayout(layout)
    registry = await startRegistry({ shelf, uploads: new Uploads(shelf) })
    image = `docker://${registry.host}/team/app:one`
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  async function mounted(
    cache: string,
    rung: string,
    use: (agent: Agent, dir: string) => Promise<void>,
  ): Promise<void> {
    const dir = join(work.path, `mnt-${cache}`)
    await mkdir(dir, { recursive: true })
    const agent = await startAgent(work.path, dir, [
      'mount',
      '--mount',
      rung,
      '--background',
      'off',
      ...flags(cache),
      image,
      dir,
    ])
    try {
      await use(agent, dir)
    } finally {
      await agent.stop()
    }
  }

  async function run(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await lazylayer(work.path, ...args)
    expect(stderr).toBe('')
    if (code !== 0) throw new Error(stdout)
    return stdout
  }

  const shown = async (cache: string) =>
    JSON.parse(await run('profile', 'show', ...flags(cache), '--format=json', image))
  const readThem = (_: Agent, dir: string) =>
    succeed(
      'cat',
      READ.map((each) => join(dir, each)),
    ).then(() => {})
  const comesAhead = (agent: Agent) =>
    expect.poll(async () => (await agent.status()).bytes.verified).toBe(READ.length * FILE_BYTES)

  test('what programs read is learned on each rung, and not what the kernel read ahead', async () => {
    for (const rung of ['erofs', 'fuse']) {
      await mounted(rung, rung, readThem)
      const { from, profile } = await shown(rung)
      expect(from, rung).toBe('start')
      expect(profile.files.map(({ path }: { path: string }) => path)).toEqual(READ)
    }
  })

  test('the next start with an empty cache finds what it reads fetched before', async () => {
    await run('cache', 'prune', '--cache', join(work.path, 'erofs'))
    await mounted('erofs', 'erofs', comesAhead)
  })

  test('a profile that was pushed orders the start of a node that never saw the image', async () => {
    expect(await run('profile', 'push', ...flags('erofs'), image)).toContain(`/${READ[0]}\n`)
    await mounted('other', 'erofs', comesAhead)
    expect(await shown('other')).toMatchObject({ from: 'registry' })
  })

  test('what programs read of a store is learned', async () => {
    const root = join(work.path, 'root')
    const serve = ['serve', '--mount', 'erofs', ...flags('store'), root]
    const agent = await startAgent(work.path, root, serve)
    try {
      await run('pull', '--root', root, '--require-lazy', image)
      const layers = join(root, 'images/overlay')
      const [id = ''] = (await readdir(layers)).filter((each) => /^[0-9a-f]{64}$/.test(each))
      await expect.poll(async () => (await agent.status()).mounts.map(({ kind }) => kind)).toContain('erofs')
      await readThem(agent, join(layers, id, 'diff'))
    } finally {
      await agent.stop()
    }
    const { from, profile } = await shown('store')
    expect(from).toBe('start')
    expect(profile.files.map(({ path }: { path: string }) => path)).toEqual(READ)
  })

  test('a profile is exported, forgotten and imported', async () => {
    const document = join(work.path, 'profile.json')
    const before = await shown('fuse')
    await run('profile', 'export', ...flags('fuse'), image, document)
    await run('profile', 'forget', ...flags('fuse'), image)
    expect(JSON.parse(await run('profile', 'ls', ...flags('fuse'), '--format=json'))).toEqual([])
    await run('profile', 'import', ...flags('fuse'), image, document)
    expect(await shown('fuse')).toMatchObject({ from: 'file', manifest: before.manifest, profile: before.profile })
    expect(await run('profile', 'ls', ...flags('fuse'))).toContain(`${registry.host}/team/app`)
  })
})
