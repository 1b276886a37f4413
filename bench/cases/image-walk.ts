// How fast the tree of a real image is listed, in a container that Podman made of it.
import { execFile } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import type { Rung } from '../../src/mount/ladder.ts'
import type { Case, Context, Sample, Subject } from '../case.ts'
import { type Served, serveLayout } from '../image.ts'
import { withOverlay } from '../overlay.ts'
import { BY_EROFS, BY_FUSE, MEASURED, SUBJECTS, serveStore } from '../product.ts'

const run = promisify(execFile)

const METRIC = 'walk entries/s'
/** A Python image of two eStargz layers, which a tool of this field has optimized; below LAZYLAYER_SAMPLES. */
const LAYOUT = 'images/py-esgz'
const TAG = 'py'
/** What its layers show together. */
const ENTRIES = 7469

/** A container is not started in the same instant as its layers are listed. */
const SETTLE_MS = 500

export const imageWalk: Case = {
  name: 'image-walk',
  explains: `readdir and stat of every entry of a real image (Python with its packages, 7,469 entries, two layers) under the overlay that
    Podman makes of the image store: each layer is a lower directory, mounted on its own, a writable one over them. Nobody looked
    into these mounts yet: each turn is a new agent. A name that the upper layer does not have is looked for in each, and of each
    regular file overlayfs asks for an extended attribute: EROFS answers both in the kernel, a FUSE server by round trips. ext4 is
    the same two layers as directories, always warm: the limit.`,
  rounds: 10,
  ratios: [
    { metric: METRIC, of: BY_EROFS, over: BY_FUSE, atLeast: 5 },
    { metric: METRIC, of: BY_EROFS, over: 'ext4' },
  ],
  async prepare(context) {
    let served: Promise<Served> | undefined
    const image = async () => {
      const samples = process.env.LAZYLAYER_SAMPLES
      if (!samples) throw new Error(`LAZYLAYER_SAMPLES is not set: the directory that has ${LAYOUT}`)
      served ??= serveLayout(join(samples, LAYOUT), TAG, context.defer)
      return (await served).reference
    }
    return [ext4(context, image), ...MEASURED.map((rung) => byRung(context, image, rung))]
  },
}

const storing = ({ dir }: Context, rung: Rung) => ({
  dir: join(dir, `store-${rung}`),
  cache: join(dir, 'cache'),
  run: join(dir, 'run'),
  rung,
})

type Image = () => Promise<string>

function byRung(context: Context, image: Image, rung: (typeof MEASURED)[number]): Subject {
  return {
    name: SUBJECTS[rung],
    async open() {
      const reference = await image()
      return async () => {
        const store = await serveStore(storing(context, rung))
        try {
          const lower = await store.list(reference)
          await setTimeout(SETTLE_MS)
          return await walk(context, lower)
        } finally {
          await store.stop()
        }
      }
    },
  }
}

function ext4(context: Context, image: Image): Subject {
  return {
    name: 'ext4',
    async open() {
      const reference = await image()
      const copies = join(context.dir, 'ext4')
      await mkdir(copies)
      const store = await serveStore(storing(context, 'erofs'))
      const lower: string[] = []
      try {
        for (const [i, layer] of (await store.list(reference)).entries()) {
          lower.push(join(copies, String(i)))
          await run('cp', ['-a', layer, lower[i] as string]) // pushed just now
        }
      } finally {
        await store.stop()
      }
      return () => walk(context, lower)
    },
  }
}

async function walk({ dir, probe }: Context, lower: readonly string[]): Promise<Sample> {
  const { entries, seconds } = await withOverlay(lower.join(':'), join(dir, 'container'), (root) =>
    probe.tree('walk', root),
  )
  if (entries !== ENTRIES) throw new Error(`a walk saw ${entries} entries of ${ENTRIES}`) // a wrong tree has no speed
  return { [METRIC]: entries / seconds }
}
