// No unverified byte is read: a bit flipped in a registry's answer, or at rest in the cache, is healed or an error, and counted.
import { mkdir, open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { devicesFor, socketFor } from '../../src/agent/agent-places.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import { RUNGS, type Rung } from '../../src/mount/ladder.ts'
import { DEVICES_DIRECTORY } from '../../src/mount/shown-devices.ts'
import { pattern } from '../fake/image.ts'
import { listTree, PYTHON } from '../fixtures/listing.ts'
import { type Agent, startAgent } from './agent.ts'
import { command, succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

const TIMEOUT_MS = 300_000
const FILES = 20
const content = (i: number) => pattern(100_000 + i * 4096, i + 1)
const hash = async (path: string) => {
  const { code, stdout, stderr } = await command('sha256sum', [path])
  return code === 0 ? (stdout.split(' ')[0] as string) : stderr.replace(/.*: /, '').trim()
}

for (const rung of RUNGS) suite(`integrity (${rung})`, lacking(['fusermount3']), () => tests(rung))

function tests(rung: Rung): void {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let agent: Agent | undefined
  let dir: string
  let right: Map<string, string>
  let blob: string

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const layout = join(work.path, 'layout')
    const { layers } = await writeImage({
      dir: layout,
      tag: 'image',
      layers: [
        {
          kind: 'estargz',
          entries: Array.from({ length: FILES }, (_, i) => ({
            path: `f${i}`,
            type: 'file' as const,
            content: content(i),
          })),
        },
      ],
    })
    blob = layers[0]?.digest ?? ''
    registry = await serveLayout(layout, work.path)
    dir = join(work.path, 'mount')
    await mkdir(dir)
    await mountWith('cache-right')
    right = new Map((await listTree(dir)).map(({ path, sha256 }) => [path, sha256 ?? '']))
    await agent?.stop()
    expect([...right.values()].filter((each) => each.length === 64)).toHaveLength(FILES + 2) // and the format's own two
  })
  afterEach(async () => {
    registry.faults = []
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  async function mountWith(cache: string): Promise<Agent> {
    const flags = ['--cache', join(work.path, cache), '--cert-dir', registry.certDir, '--mount', rung]
    agent = await startAgent(work.path, dir, ['mount', `${registry.host}/image:image`, dir, ...flags])
    return agent
  }

  const all = async () => new Map((await listTree(dir)).map(({ path, sha256 }) => [path, sha256 ?? '']))

  test('a bit flipped once in an answer is healed, and counted', { timeout: TIMEOUT_MS }, async () => {
    const running = await mountWith('cache-once')
    registry.faults = [{ match: new RegExp(blob), nth: 1, flipAt: 20_000 }]
    expect(await hash(join(dir, 'f3'))).toBe(right.get('f3'))
    expect((await running.status()).counters.chunks_corrupt).toBe(1)
  })

  test('bits that stay flipped are EIO for what they touch, and for nothing else', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const running = await mountWith('cache-ever')
    registry.faults = [{ match: new RegExp(blob), flipAt: 20_000 }]
    expect(await hash(join(dir, 'f3'))).toBe('Input/output error')
    // fetched twice for each read; the kernel reads twice: ahead, then the page itself
    const { counters } = await running.status()
    expect(counters.chunks_corrupt).toBeGreaterThanOrEqual(2)
    expect(counters.reads_failed).toBeGreaterThanOrEqual(1)
    registry.faults = []
    expect(await hash(join(dir, 'f5'))).toBe(right.get('f5'))
    // and the failure does not stick
    expect(await hash(join(dir, 'f3'))).toBe(right.get('f3'))
  })

  const atRest: { what: string; file: RegExp; counter: string }[] = [
    { what: 'contents', file: /^trees\/[0-9a-f]+\/device$/, counter: 'chunks_corrupt' },
    { what: 'metadata', file: /^trees\/[0-9a-f]+\/image$/, counter: 'images_corrupt' },
    { what: 'chunk tables', file: /^layers\/[0-9a-f]+\/chunks$/, counter: 'records_corrupt' },
    { what: 'records', file: /record\.json$/, counter: 'records_corrupt' },
  ]
  for (const [i, { what, file, counter }] of atRest.entries()) {
    test(`bits flipped in ${what} while the agent is stopped never reach a reader`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      const cache = `cache-rest-${i}`
      await mountWith(cache)
      expect(await all()).toEqual(right)
      await agent?.stop()
      const root = join(work.path, cache)
      const flipped = (await readdir(root, { recursive: true })).filter((each) => file.test(each))
      expect(flipped.length).toBeGreaterThan(0)
      for (const each of flipped) await flipBits(join(root, each))

      const running = await mountWith(cache)
      expect(await all()).toEqual(right)
      expect((await running.status()).counters[counter]).toBeGreaterThan(0)
    })
  }

  // JavaScript reads the file, whose checksums it does not look at
  if (rung !== 'portable') {
    test('bits that flip on the disk under an agent that runs never reach a reader', {
      timeout: TIMEOUT_MS,
    }, async () => {
      const running = await mountWith('cache-live')
      expect(await all()).toEqual(right)
      const tree = join(work.path, 'cache-live', 'trees')
      const device = join(tree, (await readdir(tree))[0] as string, 'device')
      await flipBits(device)
      const before = (await running.status()).counters.chunks_corrupt as number
      const shown = join(devicesFor(socketFor(join(work.path, 'run'), dir)), DEVICES_DIRECTORY)
      const below = rung === 'erofs' ? (await readdir(shown)).map((each) => join(shown, each)) : []
      await forget([device, ...below, ...[...right.keys()].map((path) => join(dir, path))])
      expect(await all()).toEqual(right)
      expect((await running.status()).counters.chunks_corrupt).toBeGreaterThan(before)
      await forget([device])
      await agent?.stop()
      await mountWith('cache-live')
      expect(await all()).toEqual(right)
      // what was wrong was put right, and is not found wrong once more
      expect((await agent?.status())?.counters.chunks_corrupt).toBe(0)
    })
  }

  test('after a restart nothing is fetched again, and all of it was verified again', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await mountWith('cache-again')
    expect(await all()).toEqual(right)
    await agent?.stop()
    const before = registry.count('blob')
    const running = await mountWith('cache-again')
    expect(await all()).toEqual(right)
    // the config, which a tag's manifest names, is kept too
    expect(registry.count('blob') - before).toBeLessThanOrEqual(1)
    const { counters, bytes } = await running.status()
    expect(counters.chunks_reverified).toBeGreaterThanOrEqual(FILES)
    expect(bytes.verified).toBeGreaterThanOrEqual(content(0).length * FILES)
  })
}

/** Gives the files' pages back, so that they are read from below. */
async function forget(paths: readonly string[]): Promise<void> {
  const script = `
import os, sys
for path in sys.argv[1:]:
    file = os.open(path, os.O_RDONLY)
    if os.path.isfile(path): os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
`
  await succeed('sync', ['-d', paths[0] as string]) // what is dirty stays
  await succeed(PYTHON, ['-c', script, ...paths])
}

/** One bit in each 64 KiB, the first in the middle of the first. */
async function flipBits(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const { size } = await file.stat()
    const byte = new Uint8Array(1)
    for (let at = Math.min(32_768, Math.floor(size / 2)); at < size; at += 65_536) {
      await file.read(byte, 0, 1, at)
      byte[0] = (byte[0] as number) ^ 4 // one was read
      await file.write(byte, 0, 1, at)
    }
  } finally {
    await file.close()
  }
}
