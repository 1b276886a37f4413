// What the two cases under an overlay share: a tree of small files, verified bytes, and each measurement on mounts that are new.
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Rung } from '../../src/mount/ladder.ts'
import type { Context, Sample, Subject } from '../case.ts'
import { serveTree } from '../image.ts'
import { layoutOrder, shuffled } from '../layout-order.ts'
import { type Mounted, mountFuseNative } from '../mount.ts'
import { withOverlay } from '../overlay.ts'
import type { Walked } from '../probe.ts'
import { BY_EROFS, BY_FUSE, mountImage, type Product } from '../product.ts'
import { noise, writeTree } from '../tree.ts'

/** 20,000 files of 200 B to 9 KB, as in the cases without an overlay. */
export const SHAPE = { directories: 200, filesEach: 100, fileMinBytes: 200, fileMaxBytes: 9000 }
export const FILES = SHAPE.directories * SHAPE.filesEach

/** A file at the tree's root that no list names: as long as it is missing, the layer is not complete. */
const REST = 'rest'
const REST_BYTES = 64 << 10

/** A container is not started in the same instant: what a server still has to do after it said that it is ready is not measured. */
const SETTLE_MS = 500

/** The erofs rung when all of the layer is there, and no FUSE has a part in it. */
export const COMPLETE = 'lazylayer, complete layer'

/** Lists of the tree's files for the probe. */
export interface Lists {
  layout: string
  shuffled: string
}

/** What is done to the root of a container that was just made. */
export interface Going {
  /** What one of it is called: `entries` or `files`. */
  counts: 'entries' | 'files'
  go(root: string, lists: Lists): Promise<Walked>
}

/**
 * ext4, fuse-native and lazylayer on each rung, the bytes of all small files in its cache, under the overlay. Each going, named, has new mounts and a new overlay, and gives
 * `<name> <counts>/s` and, of lazylayer, `<name> READs`. An agent that has read every file stays for the whole case: what it has
 * verified is verified for those that come after it, and no turn measures hashing.
 */
export async function overlaySubjects(context: Context, goings: Readonly<Record<string, Going>>): Promise<Subject[]> {
  const { dir, probe, defer } = context
  const source = join(dir, 'tree')
  await writeTree(source, SHAPE)
  await writeFile(join(source, REST), noise(REST, REST_BYTES))
  const { reference } = await serveTree({ source, dir: join(dir, 'image'), defer })
  const mounting = (name: string, cache: string, rung: Rung) => ({
    image: reference,
    dir: join(dir, name),
    cache: join(dir, cache),
    run: join(dir, 'run'),
    rung,
  })
  for (const cache of ['lazy', 'complete']) {
    const first = await mountImage(mounting(`first-${cache}`, cache, 'erofs'))
    defer(() => first.stop())
  }
  const lists = await writeLists(join(dir, 'lazy'), dir)
  await probe.list(probe.path, join(dir, 'first-lazy'), lists.layout)
  await probe.tree('readall', join(dir, 'first-complete'))

  const turn = (lower: string, mount: () => Promise<Mounted | Product | undefined>) => async (): Promise<Sample> => {
    const sample: Record<string, number> = {}
    for (const [name, { counts, go }] of Object.entries(goings)) {
      // the same for all: whoever was before may have given them back
      for (const cache of ['lazy', 'complete']) await warmDevices(join(dir, cache))
      const mounted = await mount()
      try {
        await setTimeout(SETTLE_MS)
        const { [counts]: count, seconds } = await withOverlay(lower, join(dir, 'container'), (root) => go(root, lists))
        sample[`${name} ${counts}/s`] = count / seconds
        if (mounted && 'status' in mounted)
          sample[`${name} READs`] = (await mounted.status()).counters.reads ?? Number.NaN
      } finally {
        await mounted?.stop()
      }
    }
    return sample
  }
  return [
    { name: 'ext4', open: async () => turn(source, async () => undefined) },
    {
      name: 'fuse-native',
      async open() {
        const mnt = join(dir, 'fuse-native')
        await mkdir(mnt)
        return turn(mnt, () => mountFuseNative(source, mnt, 'async'))
      },
    },
    {
      name: BY_EROFS,
      open: async () => turn(join(dir, 'erofs'), () => mountImage(mounting('erofs', 'lazy', 'erofs'))),
    },
    { name: BY_FUSE, open: async () => turn(join(dir, 'fuse'), () => mountImage(mounting('fuse', 'lazy', 'fuse'))) },
    {
      name: COMPLETE,
      open: async () => turn(join(dir, 'all'), () => mountImage(mounting('all', 'complete', 'erofs'))),
    },
  ]
}

async function writeLists(cache: string, dir: string): Promise<Lists> {
  // the format's own files lie at the root, and ext4's tree has none
  const files = (await layoutOrder(cache)).map(({ path }) => path).filter((path) => path.includes('/'))
  if (files.length !== FILES) throw new Error(`the image has ${files.length} files of ${FILES}`)
  const lists = { layout: join(dir, 'layout'), shuffled: join(dir, 'shuffled') }
  await writeFile(lists.layout, `${files.join('\n')}\n`)
  await writeFile(lists.shuffled, `${shuffled(files).join('\n')}\n`)
  return lists
}

/** Brings the cache's device files into memory. */
async function warmDevices(cache: string): Promise<void> {
  for (const tree of await readdir(join(cache, 'trees'))) {
    await readFile(join(cache, 'trees', tree, 'device')).catch((error) => {
      if (error.code !== 'ENOENT') throw error // a merged tree has none of its own
    })
  }
}
