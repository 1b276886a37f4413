// What is fetched that nobody asked for, and how often the agent is asked, over a link with a round trip.
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { Case, Sample } from '../case.ts'
import { serveTree } from '../image.ts'
import { layoutOrder, shuffled } from '../layout-order.ts'
import { BY_EROFS, BY_FUSE, MEASURED, mountImage, type Product, SUBJECTS } from '../product.ts'
import { noise } from '../tree.ts'

const LARGE = 'large'
const LARGE_BYTES = 48 << 20
/** Small, so that what is fetched shows how far the kernel read ahead, and not how large chunks are. */
const CHUNK_BYTES = 64 << 10
const SMALL = { files: 240, bytes: 10 << 10 }
/** The kernel goes on reading after the reader has what it wanted. */
const SETTLE_MS = 300

export const readAhead: Case = {
  name: 'read-ahead',
  explains: `An image of a file of 48 MiB in chunks of 64 KiB and of 240 files of 10 KiB, none of it cached, over the link of --link.
    "fault KiB" is what is fetched when a page in the middle of the mapped large file is touched, "file KiB" when one small file is
    read (both as the registry sends it, of bytes that do not compress), with the time until it is there. Then all small files
    are read one after the other, in the order in which they lie on the device and, on a new mount with an empty cache, in a shuffled
    one: READs that the agent was asked, and seconds.`,
  rounds: 3,
  // the other's over ours, so that more is better
  ratios: ['fault KiB', 'file KiB', 'in order READs', 'in order s', 'shuffled READs', 'shuffled s'].map((metric) => ({
    metric,
    of: BY_FUSE,
    over: BY_EROFS,
  })),
  async prepare({ dir, probe, link, defer }) {
    const source = join(dir, 'tree')
    await mkdir(source)
    await writeFile(join(source, LARGE), noise(LARGE, LARGE_BYTES))
    for (let i = 0; i < SMALL.files; i++) await writeFile(join(source, `small${i}`), noise(`small${i}`, SMALL.bytes))
    const image = await serveTree({ source, dir: join(dir, 'image'), chunkSize: CHUNK_BYTES, link, defer })
    const settleMs = SETTLE_MS + 2 * link.roundTripMs

    return MEASURED.map((rung) => {
      const mounting = {
        image: image.reference,
        dir: join(dir, rung),
        cache: join(dir, `cache-${rung}`),
        run: join(dir, 'run'),
        rung,
      }
      const onEmptyCache = async (use: (mounted: Product) => Promise<Sample>): Promise<Sample> => {
        await rm(mounting.cache, { recursive: true, force: true })
        const mounted = await mountImage(mounting)
        try {
          return await use(mounted)
        } finally {
          await mounted.stop()
        }
      }
      /** What `act` makes the agent do. */
      const caused = async ({ status }: Product, name: string, act: () => Promise<unknown>): Promise<Sample> => {
        const before = await status()
        const start = performance.now()
        await act()
        const seconds = (performance.now() - start) / 1000
        await setTimeout(settleMs)
        const after = await status()
        return {
          [`${name} KiB`]: (after.bytes.fetched - before.bytes.fetched) / 1024,
          [`${name} READs`]: (after.counters.reads ?? Number.NaN) - (before.counters.reads ?? Number.NaN),
          [`${name} s`]: seconds,
        }
      }
      const readList = async (mounted: Product, name: string, paths: readonly string[]) => {
        const list = join(dir, 'list')
        await writeFile(list, `${paths.join('\n')}\n`)
        return await caused(mounted, name, () => probe.list(probe.path, mounting.dir, list))
      }
      const small = async () =>
        (await layoutOrder(mounting.cache)).flatMap(({ path }) => (path.startsWith('small') ? [path] : []))
      const turn = async (): Promise<Sample> => ({
        ...(await onEmptyCache(async (mounted) => {
          const middle = (await small())[SMALL.files / 2] as string
          return {
            ...(await caused(mounted, 'fault', () => probe.fault(join(mounting.dir, LARGE), LARGE_BYTES / 2))),
            ...(await readList(mounted, 'file', [middle])),
          }
        })),
        ...(await onEmptyCache(async (mounted) => readList(mounted, 'in order', await small()))),
        ...(await onEmptyCache(async (mounted) => readList(mounted, 'shuffled', shuffled(await small())))),
      })
      return { name: SUBJECTS[rung], open: async () => turn }
    })
  },
}
