// The cache within its limit, on disks that are small or full: what programs read is right, and nothing fails, whoever shares it.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, open, readdir, rm, stat, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { CachedTree } from '../../src/cli/cache/list.ts'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { pattern } from '../fake/image.ts'
import { listTree, PYTHON } from '../fixtures/listing.ts'
import { type Agent, lazylayer, startAgent } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

const READER = fileURLToPath(new URL('../fixtures/verify-reads.py', import.meta.url))
const MIB = 1 << 20
const FILES = 24
const MAX_BYTES = 8 * MIB
/** After that the readers have seen each file, and some of them again. */
const SECONDS = 4

interface Found {
  reads: number
  wrong: number
  errors: number
}

suite('the room of the cache', lacking(['fusermount3', 'mount', 'umount']), () => {
  let work: WorkDirectory
  let registry: LayoutRegistry
  const agents: Agent[] = []
  const mounts: string[] = []
  let small: string

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const layout = join(work.path, 'layout')
    const files = Array.from({ length: FILES }, (_, i) => ({ path: `f${i}`, content: pattern(MIB + i * 4097, i + 1) }))
    const entries = (of: typeof files) => of.map((each) => ({ ...each, type: 'file' as const }))
    const large = [files.slice(0, FILES / 2), files.slice(FILES / 2)]
    await writeImage({
      dir: layout,
      tag: 'large',
      layers: large.map((each) => ({ kind: 'estargz', entries: entries(each) })),
    })
    const written = await writeImage({
      dir: layout,
      tag: 'small',
      layers: [{ kind: 'estargz', entries: entries([{ path: 'whole', content: pattern(MIB, 99) }]) }],
    })
    small = written.layers[0]?.annotations[TOC_DIGEST] as string
    await writeImage({
      dir: layout,
      tag: 'both',
      layers: [entries([{ path: 'whole', content: pattern(MIB, 99) }]), ...large.map(entries)].map((each) => ({
        kind: 'estargz',
        entries: each,
      })),
    })
    registry = await serveLayout(layout, work.path)
    const sums = files.map(({ path, content }) => `${createHash('sha256').update(content).digest('hex')}  ${path}\n`)
    await writeFile(join(work.path, 'sums'), sums.join(''))
    const whole = createHash('sha256').update(pattern(MIB, 99)).digest('hex')
    await writeFile(join(work.path, 'whole-sums'), `${whole}  whole\n`)
  })
  afterEach(async () => {
    for (const each of agents.splice(0).reverse()) await each.stop()
    for (const each of mounts.splice(0)) await succeed('umount', ['--lazy', each])
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  async function start(
    name: string,
    args: string[],
    cache: string,
    ...more: string[]
  ): Promise<{ agent: Agent; dir: string }> {
    const dir = join(work.path, name)
    await mkdir(dir, { recursive: true })
    const flags = ['--cache', cache, '--cert-dir', registry.certDir, ...more]
    const agent = await startAgent(work.path, dir, [...args, dir, ...flags])
    agents.push(agent)
    return { agent, dir }
  }
  const mountLarge = (name: string, cache: string, ...more: string[]) =>
    start(name, ['mount', `${registry.host}/image:large`], cache, '--mount', 'fuse', ...more)

  /** Reads for a while; what was found. */
  async function read(dir: string, seed: number, sums = 'sums', seconds = SECONDS): Promise<Found> {
    const reader = spawn(PYTHON, [READER, dir, join(work.path, sums), String(seed), String(seconds)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let text = ''
    reader.stdout.setEncoding('utf8').on('data', (piece: string) => {
      text += piece
    })
    await once(reader, 'close')
    return JSON.parse(text) as Found
  }

  async function disk(name: string, size: string): Promise<string> {
    const dir = join(work.path, name)
    await mkdir(dir)
    await succeed('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', dir])
    mounts.push(dir)
    return dir
  }

  const expectRight = (found: readonly Found[]) => {
    expect(found.map(({ wrong, errors }) => [wrong, errors])).toEqual(found.map(() => [0, 0]))
    for (const { reads } of found) expect(reads).toBeGreaterThan(0)
  }

  test('a limit holds for all processes that share the cache, and a layer that is mounted complete keeps all of it', async () => {
    const cache = join(work.path, 'cache')
    const flags = ['--cache-max', String(MAX_BYTES)]
    const { agent, dir: root } = await start('store', ['serve'], cache, '--mount', 'erofs', ...flags)
    const layer = join(root, 'layers', Buffer.from(`${registry.host}/image:small`).toString('base64'), small)
    const take = async () => {
      await succeed('stat', [join(layer, 'diff'), join(layer, 'info')])
      await succeed('cat', [join(layer, 'info')])
    }
    await take()
    await listTree(join(layer, 'diff'))
    await agent.stop()
    const { agent: again } = await start('store', ['serve'], cache, '--mount', 'erofs', ...flags)
    await take()
    const kind = (await again.status()).mounts.find(({ dir }) => dir === join(layer, 'diff'))?.kind
    const [one, other] = [await mountLarge('one', cache, ...flags), await mountLarge('other', cache, ...flags)]
    const watching = new AbortController()
    const sizes = watch(cache, watching.signal)
    const found = await Promise.all([
      read(one.dir, 1),
      read(one.dir, 2),
      read(other.dir, 3),
      read(join(layer, 'diff'), 4, 'whole-sums'),
    ])
    watching.abort()
    expectRight(found)
    const seen = await sizes
    // a process learns of what the others write when it looks the next time, which on a busy machine is late; but it does
    expect(seen.filter((each) => each > MAX_BYTES * 1.1).length / seen.length).toBeLessThan(0.5)
    expect(Math.max(...seen) / MAX_BYTES).toBeLessThan(1.5)
    expect(kind).toBe(again.line.includes('erofs') ? 'complete' : undefined)
  })

  test('a complete layer that containers still read keeps all of it when its agent was killed', async () => {
    const cache = join(work.path, 'outlived')
    const { agent, dir: root } = await start('outlived-store', ['serve'], cache, '--mount', 'erofs')
    const layer = join(root, 'layers', Buffer.from(`${registry.host}/image:small`).toString('base64'), small)
    const take = async () => {
      await succeed('stat', [join(layer, 'diff'), join(layer, 'info')])
      await succeed('cat', [join(layer, 'info')])
    }
    await take()
    await listTree(join(layer, 'diff'))
    await agent.stop()
    agents.pop()
    const { agent: killed } = await start('outlived-store', ['serve'], cache, '--mount', 'erofs')
    await take()
    const merged = join(work.path, 'outlived-merged')
    for (const each of [merged, `${merged}-upper`, `${merged}-work`]) await mkdir(each)
    const options = `lowerdir=diff,upperdir=${merged}-upper,workdir=${merged}-work`
    await succeed('mount', ['-t', 'overlay', 'overlay', '-o', options, merged], { cwd: layer }) // colons are separators
    mounts.push(merged)
    process.kill(killed.pid, 'SIGKILL')
    await killed.ended
    agents.pop()
    const both = await start(
      'outlived-both',
      ['mount', `${registry.host}/image:both`],
      cache,
      '--mount',
      'fuse',
      '--cache-max',
      String(MAX_BYTES),
    )
    // the layer's own file is the one that is read least
    expectRight([
      await read(both.dir, 1, 'whole-sums', 0),
      await read(both.dir, 2),
      await read(merged, 3, 'whole-sums', 0),
    ])
    // room was looked for: some was made, or all that may go was in use, and what came went through memory
    const { cache_freed: freed = 0, cache_in_memory: spilt = 0 } = (await both.agent.status()).counters
    expect(freed + spilt).toBeGreaterThan(0)
  })

  test('a small disk is never full, and reads go on', async () => {
    const dir = await disk('small', '12m')
    const { agent, dir: mounted } = await mountLarge('small-disk', join(dir, 'cache'))
    expectRight(await Promise.all([read(mounted, 1), read(mounted, 2)]))
    const { bavail, blocks } = await statfs(dir)
    expect(bavail / blocks).toBeGreaterThan(0.1)
    expect(agent.log()).not.toContain('reads fail')
  })

  test('a disk that another program fills fails no read; when there is room again, it is used', async () => {
    const dir = await disk('filled', '40m')
    const { agent, dir: mounted } = await mountLarge('filled-disk', join(dir, 'cache'))
    expectRight([await read(mounted, 1, 'sums', 0)])
    await command('dd', ['if=/dev/zero', `of=${dir}/fill`, 'bs=64k'])
    expectRight(await Promise.all([read(mounted, 2), read(mounted, 3)]))
    await rm(join(dir, 'fill'))
    expectRight([await read(mounted, 4)])
    await expect
      .poll(async () => {
        expectRight([await read(mounted, 5, 'sums', 0)])
        return await sizeOf(join(dir, 'cache'))
      })
      .toBeGreaterThan(16 * MIB)
    expect(agent.log()).not.toContain('reads fail')
  })

  test('an agent starts on a full disk, shows images that it never saw, and keeps them when there is room', async () => {
    const dir = await disk('full-start', '40m')
    const cache = join(dir, 'cache')
    await command('dd', ['if=/dev/zero', `of=${dir}/fill`, 'bs=64k'])
    const { agent, dir: mounted } = await mountLarge('full-start-mount', cache)
    expectRight(await Promise.all([read(mounted, 1, 'sums', 0), read(mounted, 2, 'sums', 0)]))
    expect(agent.log().split('the cache takes no more')).toHaveLength(2)
    expect((await agent.status()).counters.reads_failed).toBe(0)
    await rm(join(dir, 'fill'))
    const layers = () => readdir(join(cache, 'layers')).catch(() => [])
    await expect.poll(async () => (await layers()).length, { timeout: 20_000 }).toBe(2)
    await agent.stop()
    agents.pop()
    const { dir: again } = await mountLarge('full-start-again', cache)
    expectRight([await read(again, 3, 'sums', 0)])
    expect(await sizeOf(cache)).toBeGreaterThan(16 * MIB)
  })

  test('an agent starts on a cache that is read-only, serves what is there, and what is not through memory', async () => {
    const dir = await disk('read-only', '60m')
    const cache = join(dir, 'cache')
    const { agent: before, dir: first } = await mountLarge('read-only-before', cache)
    expectRight([await read(first, 1, 'sums', 0)])
    await before.stop()
    agents.pop()
    await succeed('mount', ['-o', 'remount,ro', dir])
    const size = await sizeOf(cache)
    const { agent, dir: mounted } = await mountLarge('read-only-mount', cache)
    const { bytes } = await agent.status()
    expectRight([await read(mounted, 2, 'sums', 0)])
    const after = await agent.status()
    expect(after.bytes.fetched - bytes.fetched).toBe(0)
    expect(after.counters.chunks_reverified).toBeGreaterThan(0)
    const both = await start('read-only-both', ['mount', `${registry.host}/image:both`], cache, '--mount', 'fuse')
    expectRight([await read(both.dir, 3, 'whole-sums', 0), await read(both.dir, 4, 'sums', 0)])
    expect(await sizeOf(cache)).toBe(size)
    await succeed('mount', ['-o', 'remount,rw', dir])
    const layers = () => readdir(join(cache, 'layers'))
    await expect.poll(async () => (await layers()).length, { timeout: 20_000 }).toBe(3)
  })

  test('what is cached is shown, pruned, pinned and verified beside agents that use it', async () => {
    const cache = join(work.path, 'tended')
    const tend = (...args: string[]) => lazylayer(work.path, 'cache', ...args, '--cache', cache)
    const list = async () => JSON.parse((await tend('ls', '--format', 'json')).stdout) as CachedTree[]
    const image = `${registry.host}/image:large`
    expect(await tend('ls')).toMatchObject({ code: 1, stderr: expect.stringContaining('there is no cache') })
    const { agent, dir } = await mountLarge('tended-mount', cache)
    expectRight([await read(dir, 1, 'sums', 0)])
    expect((await list()).map(({ inUse, pinned, images }) => ({ inUse, pinned, images }))).toEqual(
      Array(2).fill({ inUse: true, pinned: false, images: [image] }),
    )
    expect((await tend('prune')).stdout).toMatch(/^0 B freed/)
    await agent.stop()

    const trees = await list()
    expect(trees.every(({ inUse, cached }) => !inUse && cached > FILES * MIB * 0.45)).toBe(true)
    expect(await tend('verify')).toMatchObject({ code: 0, stdout: expect.stringContaining(' 0 damaged') })
    const [first] = trees as [CachedTree]
    const device = await open(join(cache, 'trees', first.tree.slice('sha256:'.length), 'device'), 'r+')
    await device.write(Uint8Array.of(1, 2, 3), 0, 3, 3 * MIB)
    await device.close()
    expect(await tend('verify')).toMatchObject({ code: 1, stdout: expect.stringContaining(' 1 damaged') })
    expect(await tend('verify')).toMatchObject({ code: 0, stdout: expect.stringContaining(' 0 damaged') })

    expect((await tend('pin', image)).stdout).toContain('2 of 2 layers pinned')
    expect((await tend('prune')).stdout).toMatch(/^0 B freed/)
    expect((await list()).every(({ pinned }) => pinned)).toBe(true)
    expect(await tend('unpin', image)).toMatchObject({ code: 0 })
    expect(await tend('unpin', image)).toMatchObject({ code: 1, stderr: expect.stringContaining('is not pinned') })
    await tend('prune', '--to', '18M')
    expect((await list()).filter(({ cached }) => cached > 0)).toHaveLength(1)
    await tend('prune')
    const { contents, total } = JSON.parse((await tend('du', '--format', 'json')).stdout)
    expect(contents).toBe(0)
    expect(total).toBeLessThan(MIB)
  })

  test('a disk without inodes fails no read', async () => {
    const dir = await disk('inodes', '40m')
    const { dir: mounted } = await mountLarge('no-inodes', join(dir, 'cache'))
    await succeed('mount', ['-o', 'remount,nr_inodes=60,size=40m', dir])
    await mkdir(join(dir, 'more'))
    let made = 0
    const make = () =>
      writeFile(join(dir, 'more', String(made++)), '').then(
        () => true,
        () => false,
      )
    while (await make()) {}
    expectRight(await Promise.all([read(mounted, 1), read(mounted, 2)]))
  })
})

/** What a cache has on disk, again and again. */
async function watch(cache: string, signal: AbortSignal): Promise<number[]> {
  const sizes: number[] = []
  while (!signal.aborted) sizes.push(await sizeOf(cache))
  return sizes
}

async function sizeOf(cache: string): Promise<number> {
  let bytes = 0
  for (const name of await readdir(cache, { recursive: true })) {
    const found = await stat(join(cache, name)).catch(() => undefined) // gone meanwhile
    if (found?.isFile()) bytes += found.blocks * 512
  }
  return bytes
}
