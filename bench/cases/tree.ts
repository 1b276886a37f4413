// What the two cases on a tree of small files share: the same tree behind each mount, gone through twice after mounting.
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Context, Sample, Subject } from '../case.ts'
import { type Served, serveTree } from '../image.ts'
import { type Mounted, mountFuseNative } from '../mount.ts'
import { MEASURED, mountImage, SUBJECTS } from '../product.ts'
import { writeTree } from '../tree.ts'

/** 20,000 files of 200 B to 9 KB: the shape that published numbers of such filesystems are given for. */
const SHAPE = { directories: 200, filesEach: 100, fileMinBytes: 200, fileMaxBytes: 9000 }
const FILES = SHAPE.directories * SHAPE.filesEach
const ENTRIES = FILES + SHAPE.directories
/** eStargz adds its landmark and its table of contents to what a mount shows. */
const FORMAT_ENTRIES_MAX = 2

/** What is done to the tree, and what lazylayer's cache holds when a turn begins. */
export interface Going {
  what: 'walk' | 'readall'
  cache: 'empty' | 'kept'
}

/** ext4, fuse-native, lazylayer on each rung; each turn mounts anew. Metrics: `cold entries/s`, `again entries/s`, `ready s`. */
export async function treeSubjects({ dir, probe, defer }: Context, { what, cache }: Going): Promise<Subject[]> {
  const source = join(dir, 'tree')
  await writeTree(source, SHAPE)

  const goTwice = async (root: string, readySeconds: number): Promise<Sample> => {
    const cold = await probe.tree(what, root)
    const again = await probe.tree(what, root)
    for (const { entries, files } of [cold, again]) {
      // a wrong tree has no speed
      if (entries < ENTRIES || entries > ENTRIES + FORMAT_ENTRIES_MAX) {
        throw new Error(`${what} saw ${entries} entries of ${ENTRIES}`)
      }
      if (what === 'readall' && (files < FILES || files > FILES + FORMAT_ENTRIES_MAX)) {
        throw new Error(`${what} read ${files} files of ${FILES}`)
      }
    }
    return {
      'cold entries/s': cold.entries / cold.seconds,
      'again entries/s': again.entries / again.seconds,
      'ready s': readySeconds,
    }
  }
  const onFreshMount = async (mnt: string, mounting: Promise<Mounted>): Promise<Sample> => {
    const mounted = await mounting
    try {
      return await goTwice(mnt, mounted.readySeconds)
    } finally {
      await mounted.stop()
    }
  }

  let served: Promise<Served> | undefined
  const image = () => {
    served ??= serveTree({ source, dir: join(dir, 'image'), defer }) // of both rungs
    return served
  }

  return [
    { name: 'ext4', open: async () => () => goTwice(source, 0) },
    {
      name: 'fuse-native',
      async open() {
        const mnt = join(dir, 'fuse-native')
        await mkdir(mnt)
        return () => onFreshMount(mnt, mountFuseNative(source, mnt, 'async'))
      },
    },
    ...MEASURED.map((rung) => ({
      name: SUBJECTS[rung],
      async open() {
        const { reference } = await image()
        const mounting = {
          image: reference,
          dir: join(dir, rung),
          cache: join(dir, `cache-${rung}`),
          run: join(dir, 'run'),
          rung,
        }
        return async () => {
          if (cache === 'empty') await rm(mounting.cache, { recursive: true, force: true })
          return await onFreshMount(mounting.dir, mountImage(mounting))
        }
      },
    })),
  ]
}
