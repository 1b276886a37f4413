// How fast small files are fetched that are read in an order which no read-ahead can guess.
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Case, Sample } from '../case.ts'
import { serveTree } from '../image.ts'
import { layoutOrder, shuffled as shuffle } from '../layout-order.ts'
import { BY_EROFS, BY_FUSE, MEASURED, mountImage, SUBJECTS } from '../product.ts'
import { writeTree } from '../tree.ts'

const SHAPE = { directories: 60, filesEach: 50, fileMinBytes: 200, fileMaxBytes: 9000 }
const FILES = SHAPE.directories * SHAPE.filesEach
/** What a program reads of it that needs some of it: a fifteenth. */
const SOME = FILES / 15
const READERS = 8

/** What is read of the shuffled files, and by how many programs at once. */
const READINGS = [
  { name: 'some', files: SOME, readers: 1 },
  { name: 'all', files: FILES, readers: 1 },
  { name: `all by ${READERS}`, files: FILES, readers: READERS },
] as const
const rate = ({ name }: (typeof READINGS)[number]) => `${name} files/s`

export const shuffled: Case = {
  name: 'shuffled',
  explains: `3,000 files of 200 B to 9 KB, nothing of them cached, over the link of --link, read in a shuffled order: some (200), all,
    and all by ${READERS} programs at once, each on a new mount with an empty cache. With it the requests of the registry, and what came down the
    link, in KiB; the layer has some 8,500.`,
  rounds: 3,
  ratios: READINGS.map((each) => ({ metric: rate(each), of: BY_EROFS, over: BY_FUSE })),
  async prepare({ dir, probe, link, defer }) {
    const source = join(dir, 'tree')
    await writeTree(source, SHAPE)
    const image = await serveTree({ source, dir: join(dir, 'image'), link, defer })
    return MEASURED.map((rung) => {
      const at = (what: string) => join(dir, `${what}-${rung}`)
      const mounting = { image: image.reference, dir: at('mnt'), cache: at('cache'), run: join(dir, 'run'), rung }
      const read = async (reading: (typeof READINGS)[number]): Promise<Sample> => {
        await rm(mounting.cache, { recursive: true, force: true })
        const mounted = await mountImage(mounting)
        try {
          const paths = (await layoutOrder(mounting.cache)).map(({ path }) => path).filter((path) => path.includes('/'))
          const chosen = shuffle(paths).slice(0, reading.files)
          const lists = await writeLists(dir, chosen, reading.readers)
          const before = image.counters()
          const start = performance.now()
          const done = await Promise.all(lists.map((list) => probe.list(probe.path, mounting.dir, list)))
          const seconds = (performance.now() - start) / 1000
          const files = done.reduce((sum, each) => sum + each.files, 0)
          if (files !== reading.files) throw new Error(`${files} files of ${reading.files} were read`)
          const after = image.counters()
          return {
            [rate(reading)]: files / seconds,
            [`${reading.name} requests`]: after.requests - before.requests,
            [`${reading.name} KiB`]: (after.bytesDown - before.bytesDown) / 1024,
          }
        } finally {
          await mounted.stop()
        }
      }
      return {
        name: SUBJECTS[rung],
        open: async () => async () => {
          let sample: Sample = {}
          for (const reading of READINGS) sample = { ...sample, ...(await read(reading)) }
          return sample
        },
      }
    })
  },
}

/** A list a reader, the files dealt out in turns. */
async function writeLists(dir: string, paths: readonly string[], readers: number): Promise<string[]> {
  const folder = join(dir, 'lists')
  await mkdir(folder, { recursive: true })
  return await Promise.all(
    Array.from({ length: readers }, async (_, i) => {
      const list = join(folder, String(i))
      await writeFile(list, `${paths.filter((_, j) => j % readers === i).join('\n')}\n`)
      return list
    }),
  )
}
