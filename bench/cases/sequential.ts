// What the two sequential cases share: one large file behind each mount, its bytes cached, read from start to end.
import { execFile } from 'node:child_process'
import { mkdir, open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Rung } from '../../src/mount/ladder.ts'
import type { Context, Sample, Subject } from '../case.ts'
import { type Served, serveTree } from '../image.ts'
import { mountFuseNative } from '../mount.ts'
import type { Pages, Probe } from '../probe.ts'
import { MEASURED, mountImage, SUBJECTS } from '../product.ts'
import { noise } from '../tree.ts'

const run = promisify(execFile)

/** Large enough that a pass takes tens of milliseconds, small enough to stay in every cache on the way. */
export const FILE_BYTES = 128 << 20
const NAME = 'large'
const PASSES = 5
/** A machine may take pages back at any time. */
const ATTEMPTS = 3
/** What cp and cat read with, and what a program that cares does. */
const BUFFERS = { 'MB/s, 128 KiB reads': 128 << 10, 'MB/s, 1 MiB reads': 1 << 20 } as const
export const METRICS = Object.keys(BUFFERS) as (keyof typeof BUFFERS)[]

/** What Go's io.Copy writes with, by which engines unpack; the size of writes decides that of the page cache's folios. */
const ENGINE_WRITE_BYTES = 32 << 10

/** ext4 in each state that a file can be warm in. */
export const EXT4_BY_TAR = 'ext4, unpacked by tar'
export const EXT4_BY_ENGINE = 'ext4, written 32 KiB at a time'
export const EXT4_READ_BACK = 'ext4, read back'

/** The erofs rung, when all that lies below the file is given back with it: the device's pages, and those of the cache's file. */
export const ALL_BY_EROFS = 'lazylayer, all given back'
/** The same of the fuse rung, which has no device. */
export const ALL_BY_FUSE = 'lazylayer, fuse rung, all given back'

/**
 * ext4, fuse-native in both ways of reading, lazylayer on each rung; each mounted once. `pages`: what becomes of a mount's own before each
 * pass; where they are kept, ext4 is there in three states.
 */
export async function sequentialSubjects({ dir, probe, defer }: Context, pages: 'keep' | 'drop'): Promise<Subject[]> {
  const source = join(dir, 'tree')
  await writeLarge(source)
  const turn = (at: string, of: Pages, below?: readonly string[]) => () => readThrough(probe, join(at, NAME), of, below)
  const fuseNative = async (how: 'async' | 'sync') => {
    const mnt = join(dir, how)
    await mkdir(mnt)
    const mounted = await mountFuseNative(source, mnt, how)
    defer(() => mounted.stop())
    return turn(mnt, pages)
  }
  let served: Promise<Served> | undefined
  const image = () => {
    served ??= serveTree({ source, dir: join(dir, 'image'), defer }) // of all that mount it
    return served
  }
  const lazylayer = async (name: string, rung: Rung, below: 'keep' | 'drop') => {
    const { reference } = await image()
    const at = (what: string) => join(dir, `${what}-${name}`)
    const mounted = await mountImage({
      image: reference,
      dir: at('mnt'),
      cache: at('cache'),
      run: join(dir, 'run'),
      rung,
    })
    defer(() => mounted.stop())
    return turn(at('mnt'), pages, below === 'drop' ? [...mounted.devices, ...(await cachedDevices(at('cache')))] : [])
  }
  const allGivenBack: Subject[] = [
    { name: ALL_BY_EROFS, open: () => lazylayer('all-erofs', 'erofs', 'drop') },
    { name: ALL_BY_FUSE, open: () => lazylayer('all-fuse', 'fuse', 'drop') },
  ]
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
    { name: 'fuse-native', open: () => fuseNative('async') },
    { name: 'fuse-native, readSync', open: () => fuseNative('sync') },
    ...MEASURED.map((rung) => ({ name: SUBJECTS[rung], open: () => lazylayer(rung, rung, 'keep') })),
    ...(pages === 'drop' ? allGivenBack : []),
  ]
}

/** The files that the agent's cache keeps devices in; a merged tree has none of its own. */
async function cachedDevices(cache: string): Promise<string[]> {
  const files = await readdir(join(cache, 'trees'), { recursive: true })
  return files.flatMap((each) => (each.endsWith('/device') ? [join(cache, 'trees', each)] : []))
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
  for (const metric of METRICS) sample[metric] = await speed(probe, file, BUFFERS[metric], pages, below)
  return sample
}

/** MB/s of the fastest pass. */
async function speed(
  probe: Probe,
  file: string,
  bufferBytes: number,
  pages: Pages,
  below?: readonly string[],
): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    const { bytes, seconds, resident } = await probe.sequential(file, bufferBytes, PASSES, pages, below)
    if (bytes !== FILE_BYTES) throw new Error(`a pass read ${bytes} bytes of ${FILE_BYTES}`)
    // the case says warm, or dropped: a number for anything else would be another measurement under its name
    if (pages === 'drop' ? resident < 0.01 : resident > 0.99) return bytes / seconds / 1e6
    if (attempt === ATTEMPTS) throw new Error(`${resident} of the pages were in memory`)
  }
}
