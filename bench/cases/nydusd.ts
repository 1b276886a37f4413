// lazylayer and nydusd on the same nydus image.
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Case, Context, Ratio, Sample } from '../case.ts'
import { type Served, serveLayout } from '../image.ts'
import type { Mounted } from '../mount.ts'
import { writeNydusImage } from '../nydus-image.ts'
import { mountNydusd, nydusdProgram, nydusdVersion } from '../nydusd.ts'
import { BY_EROFS, MEASURED, mountImage, SUBJECTS, serveStore } from '../product.ts'
import { noise, writeTree } from '../tree.ts'
import { atRest } from '../usage.ts'

/** As `walk` and `small-files` have it. */
const SHAPE = { directories: 200, filesEach: 100, fileMinBytes: 200, fileMaxBytes: 9000 }
const FILES = SHAPE.directories * SHAPE.filesEach
const SMALL = 'small'
const LARGE = 'large'
const LARGE_BYTES = 48 << 20
const BUFFER_BYTES = 128 << 10
const PASSES = 3

const NYDUSD = 'nydusd'
const BY_AGENT = 'lazylayer, agent running'
const TAG = 'one'

const FIRST = 'first file s'
const LESS = ['requests', 'MB down']
const MORE = [
  'walk entries/s',
  'walk again entries/s',
  'fetched files/s',
  'fetched MB/s',
  'cached files/s',
  'cached MB/s',
]
/** For information: one of the two verifies, the other does not. */
const RESTARTED = ['restarted files/s', 'restarted MB/s']

/** Bigger is better for lazylayer. */
const ratios: Ratio[] = [
  { metric: FIRST, of: NYDUSD, over: BY_AGENT, atLeast: 1 },
  { metric: FIRST, of: NYDUSD, over: BY_EROFS },
  ...LESS.map((metric) => ({ metric, of: NYDUSD, over: BY_EROFS, atLeast: 1 })),
  ...MORE.map((metric) => ({ metric, of: BY_EROFS, over: NYDUSD, atLeast: 1 })),
  ...RESTARTED.map((metric) => ({ metric, of: BY_EROFS, over: NYDUSD })),
]

export const nydusd: Case = {
  name: 'nydusd',
  explains: `A nydus image (RAFS v6, zstd, blake3; 20,000 files of 200 B to 9 KB and one of 48 MiB) behind the link of --link. With
    nothing cached: from the start until one small file was read ("first file", with manifest and bootstrap fetched: nydusd and "lazylayer"
    are processes started for that image, "agent running" is the one that serves all images of a machine, as it is used with engines); readdir
    and stat of every entry, twice; open, read and close of all small files ("fetched files"); the large file from start to end ("fetched
    MB"); requests and bytes until then; all of it again by the same process, the large file with its own pages given back before each
    pass ("cached"). Then each is started again on what it has kept ("restarted"): lazylayer verifies all of that before its first
    use, nydusd believes it. nydusd has no digests checked at all, which it cannot do for RAFS v6; lazylayer always does. nydusd's time to
    the first file has no containerd and no snapshotter in it, nor the start of what fetches its bootstrap. Programs: LAZYLAYER_NYDUSD, and nydus-image beside it.`,
  rounds: 3,
  ratios,
  async prepare(context) {
    const { dir, link, defer } = context
    let served: Promise<Served> | undefined
    const make = async () => {
      const source = join(dir, 'tree')
      await writeTree(join(source, SMALL), SHAPE)
      await writeFile(join(source, LARGE), noise(LARGE, LARGE_BYTES))
      const layout = join(dir, 'image')
      await writeNydusImage({ source, dir: layout, tag: TAG })
      return await serveLayout(layout, TAG, defer, link)
    }
    const image = () => {
      served ??= make() // of all subjects
      return served
    }
    return [
      {
        name: NYDUSD,
        version: nydusdVersion,
        async open() {
          const from = await image()
          const at = { dir: join(dir, 'mnt'), cache: join(dir, 'cache') }
          return () => goThrough(context, from, at, () => mountNydusd({ program: nydusdProgram(), image: from, ...at }))
        },
      },
      { name: BY_AGENT, open: async () => byAgent(context, await image()) },
      ...MEASURED.map((rung) => ({
        name: SUBJECTS[rung],
        async open() {
          const from = await image()
          const at = { dir: join(dir, rung), cache: join(dir, `cache-${rung}`) }
          const run = join(dir, 'run')
          return () => goThrough(context, from, at, () => mountImage({ image: from.reference, ...at, run, rung }))
        },
      })),
    ]
  },
}

/** Only the first file: then the agent begins to prove what it believed. */
function byAgent({ dir, probe }: Context, image: Served): () => Promise<Sample> {
  const at = { dir: join(dir, 'store'), cache: join(dir, 'cache-store'), run: join(dir, 'run') }
  return async () => {
    await rm(at.cache, { recursive: true, force: true })
    const list = await firstOnly(dir)
    const store = await serveStore({ ...at, rung: 'erofs' }, [], ['--diffid', 'claimed'])
    try {
      await atRest((await store.status()).pid)
      const begin = performance.now()
      const [top = ''] = await store.list(image.reference)
      await probe.list(probe.path, top, list)
      return { [FIRST]: (performance.now() - begin) / 1000 }
    } finally {
      await store.stop()
    }
  }
}

/** @returns a list of the first file alone */
async function firstOnly(dir: string): Promise<string> {
  const list = join(dir, 'first')
  await writeFile(list, `${SMALL}/d0/f0\n`)
  return list
}

async function goThrough(
  { probe, dir }: Context,
  image: Served,
  at: { dir: string; cache: string },
  mount: () => Promise<Mounted>,
): Promise<Sample> {
  const lists = { first: await firstOnly(dir), large: join(dir, 'large') }
  await writeFile(lists.large, `${LARGE}\n`)
  await rm(at.cache, { recursive: true, force: true })
  const speedOf = ({ bytes, seconds }: { bytes: number; seconds: number }) => {
    if (bytes !== LARGE_BYTES) throw new Error(`${bytes} bytes of ${LARGE_BYTES} were read`) // a wrong tree has no speed
    return bytes / seconds / 1e6
  }
  const readAll = async () => {
    const { files, seconds } = await probe.tree('readall', join(at.dir, SMALL))
    if (files !== FILES) throw new Error(`${files} files of ${FILES} were read`)
    return files / seconds
  }
  const readLarge = async () => speedOf(await probe.list(probe.path, at.dir, lists.large))

  const sample: Record<string, number> = {}
  const begin = { at: performance.now(), counters: image.counters() }
  const first = await mount()
  try {
    await probe.list(probe.path, at.dir, lists.first)
    sample[FIRST] = (performance.now() - begin.at) / 1000
    for (const metric of ['walk entries/s', 'walk again entries/s']) {
      const { entries, seconds } = await probe.tree('walk', at.dir)
      sample[metric] = entries / seconds
    }
    sample['fetched files/s'] = await readAll()
    sample['fetched MB/s'] = await readLarge()
    const counters = image.counters()
    sample.requests = counters.requests - begin.counters.requests
    sample['MB down'] = (counters.bytesDown - begin.counters.bytesDown) / 1e6
    sample['cached files/s'] = await readAll()
    sample['cached MB/s'] = speedOf(await probe.sequential(join(at.dir, LARGE), BUFFER_BYTES, PASSES, 'drop'))
  } finally {
    await first.stop()
  }
  const again = await mount()
  try {
    sample['restarted files/s'] = await readAll()
    sample['restarted MB/s'] = await readLarge()
  } finally {
    await again.stop()
  }
  return sample
}
