// What the two sequential cases share: one large file behind each mount, its bytes cached, read from start to end.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Context, Sample, Subject } from '../case.ts'
import { serveTree } from '../image.ts'
import { type Mounted, mountFuseNative } from '../mount.ts'
import type { Probe } from '../probe.ts'
import { mountImage } from '../product.ts'
import { noise } from '../tree.ts'

/** Large enough that a pass takes tens of milliseconds, small enough to stay in every cache on the way. */
export const FILE_BYTES = 128 << 20
const NAME = 'large'
const PASSES = 5
/** What cp and cat read with, and what a program that cares does. */
const BUFFERS = { 'MB/s, 128 KiB reads': 128 << 10, 'MB/s, 1 MiB reads': 1 << 20 } as const
export const METRICS = Object.keys(BUFFERS) as (keyof typeof BUFFERS)[]

/** ext4, fuse-native in both ways of reading, lazylayer; mounted once. `pages`: what becomes of a mount's own before each pass. */
export async function sequentialSubjects({ dir, probe, defer }: Context, pages: 'keep' | 'drop'): Promise<Subject[]> {
  const source = join(dir, 'tree')
  await mkdir(source)
  await writeFile(join(source, NAME), noise(NAME, FILE_BYTES), { flush: true }) // dirty pages could not be dropped
  const turn = (at: string) => () => readThrough(probe, join(at, NAME), pages)
  const behind = async (name: string, mount: (mnt: string) => Promise<Mounted>) => {
    const mnt = join(dir, name)
    await mkdir(mnt)
    const mounted = await mount(mnt)
    defer(() => mounted.stop())
    return turn(mnt)
  }
  return [
    { name: 'ext4', open: async () => turn(source) },
    { name: 'fuse-native', open: () => behind('async', (mnt) => mountFuseNative(source, mnt, 'async')) },
    { name: 'fuse-native, readSync', open: () => behind('sync', (mnt) => mountFuseNative(source, mnt, 'sync')) },
    {
      name: 'lazylayer',
      open: async () => {
        const image = await serveTree({ source, dir: join(dir, 'image'), defer })
        return await behind('lazylayer', (mnt) => mountImage(image.reference, mnt, join(dir, 'cache')))
      },
    },
  ]
}

async function readThrough(probe: Probe, file: string, pages: 'keep' | 'drop'): Promise<Sample> {
  const sample: Record<string, number> = {}
  for (const metric of METRICS) {
    const { bytes, seconds, resident } = await probe.sequential(file, BUFFERS[metric], PASSES, pages)
    if (bytes !== FILE_BYTES) throw new Error(`a pass read ${bytes} bytes of ${FILE_BYTES}`)
    // the case says warm, or dropped: a number for anything else would be another measurement under its name
    if (pages === 'keep' ? resident < 0.99 : resident > 0.01) throw new Error(`${resident} of the pages were in memory`)
    sample[metric] = bytes / seconds / 1e6
  }
  return sample
}
