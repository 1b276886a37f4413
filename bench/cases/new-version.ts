// What the next version of an image costs where the one before is here.
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { folderEntries } from '../../src/build/folder.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { Case, Context, Sample, Turn } from '../case.ts'
import { type Served, serveLayout, TAG, writeTreeImage } from '../image.ts'
import { mountImage } from '../product.ts'
import { fullPull } from '../pull.ts'
import { MANY } from '../some-of-many.ts'
import { noise, writeTree } from '../tree.ts'

const NEXT = 'two'
/** One file of so many is another one. */
const CHANGED_EVERY = 20
const CHANGED_BYTES = 16_000

const WITHOUT = 'lazylayer, nothing here'
const WITH = 'lazylayer'

export const newVersion: Case = {
  name: 'new-version',
  explains: `All 3,000 files (48 MB) of an image's next version are read, one after the other, over the link of --link: in one layer, of whose
    files 5 % changed, spread evenly. "lazylayer": all of the version before was read, and nothing since; "nothing here": it is the first
    version. "full pull" fetches the layer and unpacks it, as an engine does with a layer that it does not have. Times are from the command
    to the last byte; megabytes are the link's.`,
  ratios: [
    { metric: 'MB down', of: WITHOUT, over: WITH, atLeast: 5 },
    { metric: 'whole s', of: WITHOUT, over: WITH },
    { metric: 'MB down', of: 'full pull', over: WITH, atLeast: 5 },
    { metric: 'whole s', of: 'full pull', over: WITH },
  ],
  async prepare(context) {
    const { all, images } = await versions(context)
    return [
      { name: 'full pull', open: async () => pulled(context, images.next, all) },
      { name: WITHOUT, open: async () => lazily(context, images.next, all) },
      { name: WITH, open: async () => lazily(context, images.next, all, images.old) },
    ]
  },
}

/** Two images of one repository, and a list of the files of either. */
async function versions({ dir, link, defer }: Context) {
  const source = join(dir, 'tree')
  const layout = join(dir, 'layout')
  const files = await writeTree(source, MANY)
  const all = join(dir, 'all')
  await writeFile(all, `${files.join('\n')}\n`)
  await writeTreeImage({ source, dir: layout })
  for (const path of files.filter((_, i) => i % CHANGED_EVERY === 0)) {
    await writeFile(join(source, path), noise(`next ${path}`, CHANGED_BYTES))
  }
  const layers = [{ kind: 'estargz' as const, entries: folderEntries(source), options: { level: 1 } }]
  await writeImage({ dir: layout, tag: NEXT, layers })
  const old = await serveLayout(layout, TAG, defer, link)
  const next = { ...old, reference: old.reference.replace(new RegExp(`:${TAG}$`), `:${NEXT}`), tag: NEXT }
  return { all, images: { old, next } }
}

/** @param before what was read until nothing of it was missing */
function lazily({ dir, probe }: Context, image: Served, all: string, before?: Served): Turn {
  const at = { dir: join(dir, 'mnt'), cache: join(dir, 'cache'), run: join(dir, 'run'), rung: 'erofs' as const }
  const readAll = async ({ reference }: Served) => {
    const mounted = await mountImage({ ...at, image: reference })
    try {
      await probe.list(probe.path, at.dir, all)
    } finally {
      await mounted.stop()
    }
  }
  return async () => {
    await rm(at.cache, { recursive: true, force: true })
    if (before !== undefined) await readAll(before)
    return await timed(image, () => readAll(image))
  }
}

function pulled({ dir, probe }: Context, image: Served, all: string): Turn {
  return () =>
    timed(image, async () => void (await probe.list(probe.path, await fullPull(image, join(dir, 'pulled')), all)))
}

async function timed(image: Served, work: () => Promise<void>): Promise<Sample> {
  const [begun, before] = [performance.now(), image.counters()]
  await work()
  const { requests, bytesDown } = image.counters()
  return {
    'whole s': (performance.now() - begun) / 1000,
    requests: requests - before.requests,
    'MB down': (bytesDown - before.bytesDown) / 1e6,
  }
}
