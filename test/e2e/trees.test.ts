// What mounts show is what the images hold: images of our own whose tars have everything that a tar can say, every eStargz sample layer by
// layer, and the real image; each against its own tars.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { noise } from '../../bench/tree.ts'
import type { EstargzOptions } from '../../src/build/estargz.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { hex } from '../../src/image/digest.ts'
import { RUNGS, SERVE_RUNGS } from '../../src/mount/ladder.ts'
import { compare, type Line, listTree, readLines } from '../fixtures/listing.ts'
import { mergeLines } from '../fixtures/merge-lines.ts'
import { dir, file } from '../fixtures/source-entries.ts'
import { tarListing } from '../fixtures/tar-listing.ts'
import { item } from '../format/estargz/stargz-craft.ts'
import { sampleLayers } from '../format/samples.ts'
import { craft } from '../format/zstd-chunked/zstd-craft.ts'
import { type Agent, startAgent } from './agent.ts'
import { writeCrafted } from './crafted-layout.ts'
import { lacking, samples } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'
import { ALL, LONG } from './sample.ts'

const TIMEOUT_MS = 300_000
/** The format's own files, which the samples' expected listings lack. */
const OWN = ['stargz.index.json', '.prefetch.landmark', '.no.prefetch.landmark']

interface Case {
  tag: string
  /** Of each layer, the lowest first: what the layer store calls it, and the lines of its tar. */
  layers: { name: string; lines: readonly Line[] }[]
}

/** A mount of the fixture's choice at a time, over the images of a layout. */
function scene(layout: (work: string) => Promise<string>) {
  let work: WorkDirectory
  let registry: LayoutRegistry
  let agent: Agent | undefined
  beforeAll(async () => {
    work = await makeWorkDirectory()
    registry = await serveLayout(await layout(work.path), work.path)
  })
  const end = async () => {
    await agent?.stop()
    agent = undefined
  }
  afterEach(end)
  afterAll(async () => {
    await registry?.close()
    await work?.remove()
  })
  const flags = (of: string, rung: string) => {
    const cache = join(work.path, `cache-${of}-${rung}`)
    return ['--cache', cache, '--cert-dir', registry.certDir, '--mount', rung]
  }
  return {
    end,
    /** All in one store. */
    async expectLayers(cases: Iterable<Case>, rung: string): Promise<void> {
      const root = join(work.path, `store-${rung}`)
      agent = await startAgent(work.path, root, ['serve', root, '--diffid', 'claimed', ...flags('store', rung)])
      for (const { tag, layers } of cases) {
        const image = Buffer.from(`${registry.host}/images:${tag}`).toString('base64')
        for (const { name, lines } of layers) {
          const layer = join(root, 'layers', image, name)
          await readFile(join(layer, 'info')) // waits for the kernel's mount, whose inodes have other numbers
          const shown = await listTree(join(layer, 'diff'))
          expect(compare(lines, shown, { extra: OWN }), `${tag}, ${name}`).toEqual([])
        }
      }
    },
    async expectWhole({ tag, layers }: Case, rung: string): Promise<void> {
      const dir = join(work.path, `mount-${tag}-${rung}`)
      await mkdir(dir, { recursive: true })
      const image = `docker://${registry.host}/images:${tag}`
      agent = await startAgent(work.path, dir, ['mount', image, dir, ...flags(tag, rung)])
      const whole = mergeLines(layers.map(({ lines }) => lines))
      // fuse-native has no times before 1970
      const merged = rung === 'portable' ? whole.map((line) => ({ ...line, mtime: Math.max(0, line.mtime) })) : whole
      expect(compare(merged, await listTree(dir), { extra: OWN })).toEqual([])
    },
  }
}

/** In each layer: overlayfs shows the attributes of the uppermost. */
const ROOT = dir('', { mode: 0o751, uid: 1, gid: 2, mtime: 1_600_000_000_123_456_789n })

const LAYERS: readonly (readonly SourceEntry[])[] = [
  [
    ROOT,
    dir('bin', { mode: 0o1777 }),
    file('bin/large', noise('large', 9_000_001), { mode: 0o755 }),
    file('bin/also', noise('also', 300_000), { uid: 70_000, gid: 4_000_000_000, mode: 0o4755 }),
    { path: 'bin/linked', type: 'hardlink', target: 'bin/also' },
    { path: 'linked', type: 'hardlink', target: 'bin/linked' },
    { path: 'bin/sh', type: 'symlink', target: '../usr//bin/./sh' },
    { path: 'far', type: 'symlink', target: 't'.repeat(4000) },
    { path: 'null', type: 'char', rdev: [1, 3], mode: 0o666 },
    { path: 'disk', type: 'block', rdev: [259, 100_000] },
    { path: 'pipe', type: 'fifo' },
    file('empty', ''),
    file('block', noise('block', 4096)),
    file('old', 'before 1970', { mtime: -1_500_000_000n }),
    file(`${'deep/'.repeat(40)}file`, 'deep'),
    file(`${'n'.repeat(255)}`, 'a long name'),
    file('é/\u{1f600}', 'names'),
    file('attributes', noise('attributes', 70_000), {
      xattrs: new Map([
        ['user.long', noise('user.long', 3000)],
        ['trusted.bin', Uint8Array.of(0, 255, 10)],
      ]),
    }),
    dir('hidden'),
    file('hidden/old', 'old'),
    file('gone/x', 'x'),
    file('kept/old', 'old'),
    file('was-dir/file', 'file'),
    ...Array.from({ length: 600 }, (_, i) => file(`many/file-${i}`, `contents ${i % 50}\n`.repeat(i))),
  ],
  [
    ROOT,
    file('.wh.gone', ''),
    dir('hidden', { mode: 0o700 }),
    file('hidden/.wh..wh..opq', ''),
    file('hidden/new', 'new'),
    file('kept/new', 'new'),
    file('was-dir', 'a file now'),
    file('many/.wh.file-7', ''),
    file('many/file-8', 'replaced'),
  ],
  [ROOT, file('top', noise('top', 5_000_000)), { path: 'kept/linked', type: 'hardlink', target: 'top' }],
]

/** What differs in how their bytes are stored. */
const WRITTEN: Record<string, EstargzOptions> = {
  usual: { prioritized: ['bin/also', 'many/file-3'] },
  'small-chunks': { chunkSize: 64 << 10 },
  'shared-members': { chunkSize: 64 << 10, minChunkSize: 256 << 10 },
}

suite('mounts show what our images hold', lacking(['fusermount3', 'python3']), () => {
  const cases = new Map<string, Case>()
  const { expectLayers, expectWhole } = scene(async (work) => {
    const layout = join(work, 'layout')
    for (const [tag, options] of Object.entries(WRITTEN)) {
      const { layers } = await writeImage({
        dir: layout,
        tag,
        layers: LAYERS.map((entries, i) => ({
          kind: 'estargz',
          entries,
          options: i === 0 ? { level: 1, ...options } : { level: 1, ...options, prioritized: [] },
        })),
      })
      cases.set(tag, {
        tag,
        layers: layers.map(({ digest }) => ({
          name: digest,
          lines: tarListing(join(layout, 'blobs/sha256', hex(digest))) as Line[],
        })),
      })
    }
    return layout
  })
  test.each(SERVE_RUNGS)('each layer as a lower directory (%s)', { timeout: TIMEOUT_MS }, (rung) =>
    expectLayers(cases.values(), rung),
  )
  for (const tag of Object.keys(WRITTEN)) {
    test.each(RUNGS)(`the whole of ${tag} as a root filesystem (%s)`, { timeout: TIMEOUT_MS }, (rung) =>
      expectWhole(cases.get(tag) as Case, rung),
    )
  }
})

suite('mounts show zeros that no chunk holds', lacking(['fusermount3', 'python3']), () => {
  /** Runs that begin and end within blocks, and whole blocks of them. */
  const sparse = craft([
    item({ name: 'sparse' }, Buffer.concat([Buffer.from('begin'), Buffer.alloc(200_000), Buffer.from('end')])),
    item({ name: 'short' }, Buffer.concat([Buffer.alloc(1500), Buffer.from('end'), Buffer.alloc(1024)])),
    item({ name: 'many' }, Buffer.concat(Array(300).fill(Buffer.concat([Buffer.from('x'), Buffer.alloc(3000)])))),
  ])
  /** A layer without any chunk. */
  const nothing = craft([item({ name: 'zeros' }, Buffer.alloc(70 << 20))])
  let layers: Case['layers']
  const { expectWhole, end } = scene(async (work) => {
    const crafted = [sparse, nothing]
    layers = await Promise.all(
      crafted.map(async ({ tar }, i) => {
        const path = join(work, `tar-${i}`)
        await writeFile(path, tar)
        return { name: path, lines: tarListing(path) as Line[] }
      }),
    )
    const stored = crafted.map(({ blob, tar, descriptor: { mediaType, annotations } }) => ({
      blob,
      tar,
      mediaType,
      annotations,
    }))
    const image = { layers: stored, config: { os: 'linux', architecture: 'amd64' } }
    return (await writeCrafted(work, { sparse: image })).layout
  })
  test.each(RUNGS)(
    'at first, and again when all that is stored is there (%s)',
    { timeout: TIMEOUT_MS },
    async (rung) => {
      await expectWhole({ tag: 'sparse', layers }, rung)
      await end()
      await expectWhole({ tag: 'sparse', layers }, rung)
    },
  )
})

const found = samples()
const folder = 'path' in found ? found.path : ''

suite(
  'mounts show what sample images hold',
  'lacking' in found ? found.lacking : lacking(['fusermount3', 'python3']),
  () => {
    const { expectLayers, expectWhole } = scene(async () => join(folder, 'samples/oci'))
    const of = (tag: string): Case => ({
      tag,
      layers: sampleLayers('samples/oci', tag).map(({ descriptor }, i) => ({
        name: descriptor.digest,
        lines: readLines(join(folder, `samples/expected/layer${i + 1}.jsonl`)),
      })),
    })
    const tags = ['esgz', 'esgz-min', 'esgz-ext']
    test.each(SERVE_RUNGS)('each layer as a lower directory (%s)', { timeout: TIMEOUT_MS }, (rung) =>
      expectLayers(tags.map(of), rung),
    )
    for (const tag of tags) {
      test.each(RUNGS)(`the whole of ${tag} as a root filesystem (%s)`, { timeout: TIMEOUT_MS }, (rung) =>
        expectWhole(of(tag), rung),
      )
    }
  },
)

suite(
  'mounts show what the real image holds',
  'lacking' in found ? found.lacking : lacking(['fusermount3', 'python3']),
  () => {
    const { expectWhole } = scene(async () => join(folder, 'images/py-esgz'))
    let layers: Case['layers']
    beforeAll(() => {
      layers = sampleLayers('images/py-esgz', 'py').map(({ path }) => ({
        name: path,
        lines: tarListing(path) as Line[],
      }))
    }, TIMEOUT_MS)
    if (!ALL) test.skip(`which are its layers unpacked by tar (portable) (${LONG})`, () => undefined)
    test.each(ALL ? RUNGS : SERVE_RUNGS)(
      'which are its layers unpacked by tar (%s)',
      { timeout: TIMEOUT_MS },
      async (rung) => {
        expect(layers.map(({ lines }) => lines.length > 1000)).toEqual([true, true])
        await expectWhole({ tag: 'py', layers }, rung)
      },
    )
  },
)
