// A start that reads some of many files: of an image of one layer a static program reads every 15th, one after the other, as a start does
// that nobody prepared.
import { chmod, copyFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Context, Sample, Turn } from './case.ts'
import type { Served } from './image.ts'
import type { Probe } from './probe.ts'
import { mountImage } from './product.ts'
import { fullPull } from './pull.ts'
import { type TreeShape, writeTree } from './tree.ts'

/** 6.4 % is what a start reads (Slacker, FAST '16). */
const READ_EVERY = 15
const PROGRAM = 'start'

/** The link is quiet when nothing has come over it for so long … */
const QUIET_MS = 500
/** … and nobody waits longer for that. */
const QUIET_MAX_MS = 60_000

/** About 48 MB in 3,000 files. */
export const MANY: TreeShape = { directories: 60, filesEach: 50, fileMinBytes: 500, fileMaxBytes: 32_000 }

export interface Start {
  /** The tree. */
  source: string
  /** What the start reads, the program first, in that order. */
  wanted: readonly string[]
  pulled(image: Served): Turn
  /**
   * @param flags of `mount`
   * @param cache what it starts with; default: an empty one, anew each time
   */
  lazily(image: Served, flags?: readonly string[], cache?: StartCache): Turn
}

export interface StartCache {
  /** Below the case's folder. */
  name: string
  /** Called before each start. */
  empty(dir: string): Promise<void>
}

const NEW: StartCache = { name: 'cache', empty: (dir) => rm(dir, { recursive: true, force: true }) }

export async function someOfMany({ dir, probe }: Context, shape: TreeShape): Promise<Start> {
  const source = join(dir, 'tree')
  const files = await writeTree(source, shape)
  await copyFile(probe.path, join(source, PROGRAM))
  await chmod(join(source, PROGRAM), 0o755)
  const wanted = files.filter((_, i) => i % READ_EVERY === 0)
  const lists = { first: join(dir, 'first'), all: join(dir, 'all') }
  await writeFile(lists.first, `${wanted[0]}\n`)
  await writeFile(lists.all, `${wanted.join('\n')}\n`)
  const reading = { probe, lists, files: wanted.length }
  return {
    source,
    wanted: [PROGRAM, ...wanted],
    pulled: (image) => () => {
      const begin = beginning(image)
      return fullPull(image, join(dir, 'pulled')).then((root) => start(image, root, reading, begin))
    },
    lazily(image, flags = [], cache = NEW) {
      const mounting = {
        image: image.reference,
        dir: join(dir, 'mnt'),
        cache: join(dir, cache.name),
        run: join(dir, 'run'),
      }
      return async () => {
        await cache.empty(mounting.cache)
        const begin = beginning(image)
        const mounted = await mountImage({ ...mounting, rung: 'erofs' }, flags)
        try {
          const sample = await start(image, mounting.dir, reading, begin)
          await untilQuiet(image)
          return { ...sample, 'MB in all': (image.counters().bytesDown - begin.counters.bytesDown) / 1e6 }
        } finally {
          await mounted.stop()
        }
      }
    },
  }
}

interface Reading {
  probe: Probe
  lists: { first: string; all: string }
  files: number
}

const beginning = (image: Served) => ({ at: performance.now(), counters: image.counters() })

/** Reads the first file, then runs the program from `root`. */
async function start(
  image: Served,
  root: string,
  { probe, lists, files }: Reading,
  begin: ReturnType<typeof beginning>,
): Promise<Sample> {
  await probe.list(probe.path, root, lists.first)
  const firstByte = performance.now()
  const read = await probe.list(join(root, PROGRAM), root, lists.all)
  const exit = performance.now()
  if (read.files !== files) throw new Error(`the program read ${read.files} files`)
  const { requests, bytesDown } = image.counters()
  const bytes = (bytesDown - begin.counters.bytesDown) / 1e6
  return {
    'first byte s': (firstByte - begin.at) / 1000,
    'exit s': (exit - begin.at) / 1000,
    requests: requests - begin.counters.requests,
    'MB down': bytes,
    'MB in all': bytes,
  }
}

async function untilQuiet(image: Served): Promise<void> {
  const end = performance.now() + QUIET_MAX_MS
  for (let before = -1, now = image.counters().bytesDown; before !== now && performance.now() < end; ) {
    await setTimeout(QUIET_MS)
    ;[before, now] = [now, image.counters().bytesDown]
  }
}
