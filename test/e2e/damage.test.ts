// Damage at rest, of each kind of file in the cache and of several at once: the first start succeeds, everything that was listed is listed
// again, engines find what they found before, and every file reads right.
import { lstat, mkdir, open, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { pattern } from '../fake/image.ts'
import { type Line, listTree, listTrees } from '../fixtures/listing.ts'
import { type Agent, lazylayer, startAgent } from './agent.ts'
import { succeed } from './engines/command.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'
import { ALL } from './sample.ts'

const TIMEOUT_MS = 300_000
/** Rounds of several kinds of damage at once. */
const ROUNDS = Number(process.env.LAZYLAYER_DAMAGE_ROUNDS ?? (ALL ? 3 : 1))
const SEED = Number(process.env.LAZYLAYER_DAMAGE_SEED ?? 20)

/** A small generator (mulberry32), so that a seed names a round. */
function random(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Kinds of files, by their paths in the cache. */
const KINDS: Record<string, RegExp> = {
  version: /^version$/,
  objects: /^objects\/\w+$/,
  'chunk tables': /^layers\/\w+\/chunks$/,
  records: /^layers\/\w+\/record\.json$/,
  images: /^trees\/\w+\/image$/,
  devices: /^trees\/\w+\/device$/,
  'ready files': /^trees\/\w+\/ready$/,
  references: /^references\/\w+\.json$/,
  slots: /^slots\/\w+$/,
  proofs: /^proofs\/\w+\/\w+\.json$/,
  listings: /^listed\/\w+\.json$/,
  'whole blobs': /^wholes\/\w+$/,
  pins: /^pins\/\w+\.json$/,
  twins: /^twins\/.*\.json$/,
}

const FOLDERS = [
  'objects',
  'layers',
  'trees',
  'references',
  'slots',
  'proofs',
  'listed',
  'wholes',
  'twins',
  'merged',
  'accepted',
  'tmp',
]

type Damage = (paths: readonly string[], chance: () => number) => Promise<void>

const DAMAGES: Record<string, Damage> = {
  'a flipped bit in each': (paths, chance) => each(paths, (path) => flip(path, chance())),
  'a flipped bit in the middle of each': (paths) => each(paths, (path) => flip(path, 0.5)),
  'each cut off': (paths, chance) =>
    each(paths, async (path) => truncate(path, Math.floor((await lstat(path)).size * chance()))),
  'each empty': (paths) => each(paths, (path) => truncate(path)),
  'each gone': (paths) => each(paths, (path) => rm(path)),
  'each in another one’s place': async (paths) => {
    const [first, ...others] = paths
    if (first === undefined || others.length === 0) return
    await rename(first, `${first}.x`)
    let free = first
    for (const path of others) {
      await rename(path, free)
      free = path
    }
    await rename(`${first}.x`, free)
  },
  'each a folder': (paths) =>
    each(paths, async (path) => {
      await rm(path)
      await mkdir(path)
    }),
}

async function each(paths: readonly string[], work: (path: string) => Promise<void>): Promise<void> {
  for (const path of paths) await work(path)
}

const copy = (from: string, to: string) => succeed('cp', ['-a', from, to])

/** One bit, and of large files one in each 64 KiB. */
async function flip(path: string, at: number): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const { size } = await file.stat()
    const byte = new Uint8Array(1)
    for (let place = Math.floor(Math.min(size, 65_536) * at); place < size; place += 65_536) {
      await file.read(byte, 0, 1, place)
      byte[0] = (byte[0] as number) ^ 4 // one was read
      await file.write(byte, 0, 1, place)
    }
  } finally {
    await file.close()
  }
}

suite('a damaged cache', lacking(['fusermount3']), () => {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let agent: Agent | undefined
  let root: string
  let right: Map<string, unknown>
  let layerPaths: string[]
  const cache = () => join(work.path, 'cache')

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const layout = join(work.path, 'layout')
    const files = (name: string, count: number): SourceEntry[] =>
      Array.from({ length: count }, (_, i) => ({
        path: `${name}-${i}`,
        type: 'file',
        content: pattern(20_000 + i * 4096, i + name.length),
      }))
    const lazy = await writeImage({
      dir: layout,
      tag: 'lazy',
      layers: ['a', 'bb', 'ccc'].map((name, i) => ({ kind: 'estargz', entries: files(name, i + 3) })),
    })
    const proven = await writeImage({
      dir: layout,
      tag: 'proven',
      layers: [
        { kind: 'estargz', entries: files('dddd', 4) },
        { kind: 'gzip', entries: files('eeeee', 3) },
        { kind: 'estargz', entries: files('ffffff', 2) },
      ],
    })
    registry = await serveLayout(layout, work.path)
    root = join(work.path, 'store')
    await serve()
    const name = (tag: string) => `${registry.host}/image:${tag}`
    const told = [
      await lazylayer(work.path, 'pull', name('lazy'), '--root', root),
      await lazylayer(work.path, 'pull', '--prove', name('proven'), '--root', root),
    ]
    expect(told.map(({ stdout }) => stdout)).toEqual([
      `${name('lazy')}: 3 of 3 layers listed (3 by index)\n`,
      `${name('proven')}: 3 of 3 layers listed (3 by DiffID)\n`,
    ])
    expect((await lazylayer(work.path, 'cache', 'pin', name('lazy'), '--cache', cache())).code).toBe(0)
    // as engines ask: by what the layers are known by
    const tocs = JSON.parse(await readFile(join(layout, 'blobs/sha256', lazy.manifestDigest.slice(7)), 'utf8'))
    const path = (tag: string, digest: string) => join('layers', Buffer.from(name(tag)).toString('base64'), digest)
    layerPaths = [
      ...tocs.layers.map(({ annotations }: { annotations: Record<string, string> }) =>
        path('lazy', annotations['containerd.io/snapshot/stargz/toc.digest'] ?? ''),
      ),
      ...proven.layers.map(({ digest }) => path('proven', digest)),
    ]
    right = await all()
    expect(right.size).toBe(12)
    await agent?.stop()
    agent = undefined
    await copy(cache(), join(work.path, 'pristine'))
    for (const kind of Object.values(KINDS)) expect((await filesOf(kind)).length, String(kind)).toBeGreaterThan(0)
  }, TIMEOUT_MS)
  afterEach(async () => {
    registry.faults = []
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })

  async function serve(): Promise<Agent> {
    agent = await startAgent(work.path, root, ['serve', root, '--cache', cache(), '--cert-dir', registry.certDir])
    return agent
  }

  async function restorePristine(): Promise<void> {
    await rm(cache(), { recursive: true, force: true })
    await copy(join(work.path, 'pristine'), cache())
  }

  async function filesOf(kind: RegExp): Promise<string[]> {
    const found: string[] = []
    for (const path of (await readdir(cache(), { recursive: true })).sort()) {
      if (kind.test(path) && (await lstat(join(cache(), path))).isFile()) found.push(path)
    }
    return found
  }

  async function damage(kind: RegExp, how: Damage, chance: () => number): Promise<void> {
    await how(
      (await filesOf(kind)).map((each) => join(cache(), each)),
      chance,
    )
  }

  /** Layers in the list, by their paths. */
  async function listed(): Promise<string[]> {
    const list: { id: string }[] = JSON.parse(await readFile(join(root, 'images/overlay-layers/layers.json'), 'utf8'))
    return list.map(({ id }) => join('images/overlay', id)).sort()
  }

  /** Layers in the list with what their trees hold, and those that engines look up. */
  async function all(): Promise<Map<string, unknown>> {
    const paths = [...(await listed()), ...layerPaths].sort()
    const at = (path: string) => join(root, path, 'diff')
    const oneByOne = () =>
      Promise.all(paths.map((path) => listTree(at(path)).catch((error: Error): string => error.message)))
    const trees = await listTrees(paths.map(at)).catch(oneByOne) // which tells which one cannot be listed
    const contents = (tree: Line[]) => tree.map(({ path, sha256 }) => `${path} ${sha256}`).sort()
    return new Map(
      trees.map((tree, i) => [paths[i] as string, typeof tree === 'string' ? tree : contents(tree)] as const),
    )
  }

  async function expectAll(what: string): Promise<Agent> {
    const running = await serve().catch((error) => Promise.reject(new Error(what, { cause: error })))
    // A start waits for registries 10 s at most, which a busy machine takes; what is listed behind it is waited for where the agent says so.
    if (running.log().includes('listed before is asked for again')) {
      const before = [...right.keys()].filter((path) => !layerPaths.includes(path)).sort()
      await expect.poll(listed, { timeout: TIMEOUT_MS / 2, interval: 500, message: what }).toEqual(before)
    }
    expect(await all(), `${what}\n${running.log()}`).toEqual(right)
    return running
  }

  for (const [i, name] of Object.keys(KINDS).entries()) {
    for (const [j, how] of Object.keys(DAMAGES).entries()) {
      // of every second kind one, and all of them where there is time
      if (!ALL && (i % 2 === 1 || j !== (i / 2) % Object.keys(DAMAGES).length)) continue
      test(`${name}: ${how}`, { timeout: TIMEOUT_MS }, async () => {
        await restorePristine()
        await damage(KINDS[name] as RegExp, DAMAGES[how] as Damage, random(SEED + i))
        await expectAll(`${name}: ${how}`)
        if (!ALL) return
        await agent?.stop()
        // and what was mended stays so
        await expectAll(`${name}: ${how}, the second time`)
      })
    }
  }

  // each alone where there is time
  const quarter = FOLDERS.length / 4
  const together = Array.from({ length: quarter }, (_, i) => FOLDERS.filter((_, j) => j % quarter === i))
  for (const names of ALL ? FOLDERS.map((name) => [name]) : together) {
    const gone = `${names.join(' and ')} gone`
    test(`folders: ${gone}${ALL ? ', and then a file' : ''}`, { timeout: TIMEOUT_MS }, async () => {
      const paths = names.map((name) => join(cache(), name))
      await restorePristine()
      for (const path of paths) await rm(path, { recursive: true })
      await expectAll(gone)
      if (!ALL) return
      await agent?.stop()
      for (const path of paths) {
        await rm(path, { recursive: true })
        await writeFile(path, 'x')
      }
      await expectAll(`${names.join(' and ')}: a file`)
    })
  }

  for (let round = 0; round < ROUNDS; round++) {
    const chance = random(SEED * 1000 + round)
    const pick = <T>(from: readonly T[]) => from[Math.floor(chance() * from.length)] as T
    const mix = Array.from({ length: 2 + (round % 2) }, () => ({
      name: pick(Object.keys(KINDS)),
      how: pick(Object.keys(DAMAGES)),
    }))
    const title = mix.map(({ name, how }) => `${name}: ${how}`).join('; ')
    test(`round ${round}: ${title}`, { timeout: TIMEOUT_MS }, async () => {
      await restorePristine()
      for (const { name, how } of mix) await damage(KINDS[name] as RegExp, DAMAGES[how] as Damage, chance)
      await expectAll(title)
    })
  }

  test('proofs are gone with their twins: the layers are proven again', { timeout: TIMEOUT_MS }, async () => {
    await restorePristine()
    for (const each of ['proofs', 'twins/proofs', 'wholes', 'objects'])
      await rm(join(cache(), each), { recursive: true })
    await expectAll('no proof is left')
  })

  test('a registry that is away: what disk has is listed at once, and the rest when it is back', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await restorePristine()
    // of the second image nothing is left but what disk says of its name
    const { digest } = JSON.parse(await readFile(join(work.path, 'layout', 'index.json'), 'utf8')).manifests[1]
    await rm(join(cache(), 'objects', digest.slice('sha256:'.length)))
    registry.faults = [{ match: /./, status: 503 }]
    const running = await serve()
    expect(await listed()).toHaveLength(3)
    expect(running.log()).toContain('its layers are not listed again')
    registry.faults = []
    await expect.poll(listed, { timeout: TIMEOUT_MS, interval: 500 }).toHaveLength(6)
    expect(await all()).toEqual(right)
    expect(running.log()).toContain('its layers are listed again')
  })

  test('a flipped bit in every file at once', { timeout: TIMEOUT_MS }, async () => {
    const chance = random(SEED)
    for (const at of [0.1, 0.9, ...Array.from({ length: ALL ? ROUNDS : 0 }, chance)]) {
      await restorePristine()
      await damage(/./, (paths) => each(paths, (path) => flip(path, at)), chance)
      await expectAll(`at ${at}`)
      await agent?.stop()
      const { stdout } = await lazylayer(work.path, 'cache', 'ls', '--cache', cache())
      expect(stdout.match(/pinned/g) ?? [], `at ${at}`).toHaveLength(3)
    }
  })
})
