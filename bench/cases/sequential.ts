// What the two sequential cases share: one large file behind each mount, its bytes cached, read from start to end.
import { execFile } from 'node:child_process'
import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { RUNGS } from '../../src/mount/ladder.ts'
import type { Context, Sample, Subject } from '../case.ts'
import { type Served, serveTree } from '../image.ts'
import { type Mounted, mountFuseNative } from '../mount.ts'
import type { Pages, Probe } from '../probe.ts'
import { mountImage, SUBJECTS } from '../product.ts'
import { noise } from '../tree.ts'

const run = promisify(execFile)

/** Large enough that a pass takes tens of milliseconds, small enough to stay in every cache on the way. */
export const FILE_BYTES = 128 << 20
const NAME = 'large'
const PASSES = 5
/** What cp and cat read with, and what a program that cares does. */
const BUFFERS = { 'MB/s, 128 KiB reads': 128 << 10, 'MB/s, 1 MiB reads': 1 << 20 } as const
export const METRICS = Object.keys(BUFFERS) as (keyof typeof BUFFERS)[]

/** What Go's io.Copy writes with, by which engines unpack; the size of writes decides that of the page cache's folios. */
const ENGINE_WRITE_BYTES = 32 << 10

/** ext4 in each state that a file can be warm in. */
export const EXT4_BY_TAR = 'ext4, unpacked by tar'
export const EXT4_BY_ENGINE = 'ext4, written 32 KiB at a time'
export const EXT4_READ_BACK = 'ext4, read back'

/**
 * ext4, fuse-native in both ways of reading, lazylayer; each mounted once. `pages`: what becomes of a mount's own before each
 * pass; where they are kept, ext4 is there in three states.
 */
export async function sequentialSubjects({ dir, probe, defer }: Context, pages: 'keep' | 'drop'): Promise<Subject[]> {
  const source = join(dir, 'tree')
  await writeLarge(source)
  const turn = (at: string, of: Pages, below?: readonly string[]) => () => readThrough(probe, join(at, NAME), of, below)
  const behind = async (name: string, mount: (mnt: string) => Promise<Mounted & { devices?: readonly string[] }>) => {
    const mnt = join(dir, name)
    await mkdir(mnt)
    const mounted = await mount(mnt)
    defer(() => mounted.stop())
    return turn(mnt, pages, mounted.devices)
  }
  let served: Promise<Served> | undefined
  const image = () => {
    served ??= serveTree({ source, dir: join(dir, 'image'), defer }) // of both rungs
    return served
  }
  const dropped: Subject[] = [{ name: 'ext4', open: async () => turn(source, 'drop') }]
  const kept: Subject[] = [
    {
      name: EXT4_BY_TAR,
      async open() {
        const to = join(dir, 'by-tar')
        await mkdir(to)
        await run('sh', ['-c', 'tar -cf - -C "$1" . | tar -xf - -C "$2"', 'sh', source, to])
        return turn(to, 'keep')
      },
    },
    { name: EXT4_BY_ENGINE, open: async () => turn(source, 'keep') },
    {
      name: EXT4_READ_BACK,
      async open() {
        const to = join(dir, 'read-back')
        await writeLarge(to)
        return turn(to, 'refill')
      },
    },
  ]
  return [
    ...(pages === 'keep' ? kept : dropped),
    { name: 'fuse-native', open: () => behind('async', (mnt) => mountFuseNative(source, mnt, 'async')) },
    { name: 'fuse-native, readSync', open: () => behind('sync', (mnt) => mountFuseNative(source, mnt, 'sync')) },
    ...RUNGS.map((rung) => ({
      name: SUBJECTS[rung],
      open: async () => {
        const { reference } = await image()
        const cache = join(dir, `cache-${rung}`)
        return await behind(rung, (mnt) =>
          mountImage({ image: reference, dir: mnt, cache, run: join(dir, 'run'), rung }),
        )
      },
    })),
  ]
}

/** Writes the file as an engine would; flushed, because dirty pages cannot be given back. */
async function writeLarge(dir: string): Promise<void> {
  await mkdir(dir)
  const bytes = noise(NAME, FILE_BYTES)
  const handle = await open(join(dir, NAME), 'wx')
  try {
    for (let at = 0; at < bytes.length; at += ENGINE_WRITE_BYTES) await handle.write(bytes, at, ENGINE_WRITE_BYTES)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function readThrough(probe: Probe, file: string, pages: Pages, below?: readonly string[]): Promise<Sample> {
  const sample: Record<string, number> = {}
  for (const metric of METRICS) {
    const { bytes, seconds, resident } = await probe.sequential(file, BUFFERS[metric], PASSES, pages, below)
    if (bytes !== FILE_BYTES) throw new Error(`a pass read ${bytes} bytes of ${FILE_BYTES}`)
    // the case says warm, or dropped: a number for anything else would be another measurement under its name
    if (pages === 'drop' ? resident > 0.01 : resident < 0.99) throw new Error(`${resident} of the pages were in memory`)
    sample[metric] = bytes / seconds / 1e6
  }
  return sample
}
