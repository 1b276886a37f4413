// What a read costs in kernel memory.
import { mkdir, open, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Case, Sample } from '../case.ts'
import { serveTree } from '../image.ts'
import type { Probe } from '../probe.ts'
import { MEASURED, mountImage, SUBJECTS } from '../product.ts'
import { noise } from '../tree.ts'

const LARGE = 'large'
const LARGE_BYTES = 48 << 20

export const pageCache: Case = {
  name: 'page-cache',
  explains: `One read from start to end of a file of 48 MiB, and how much of it is in the page cache afterwards (mincore), in MiB: as pages of the
    file in the mount, of the device that EROFS reads through FUSE, and of the file in the agent's cache. "cold": fetched over the
    link of --link, so that the last bytes are still to be written to disk and cannot be given back. "kept": by a new agent whose cache has
    them, which reads them back to verify them. "complete": by one whose cache has the whole layer, which EROFS then reads itself.`,
  rounds: 3,
  ratios: [],
  async prepare({ dir, probe, link, defer }) {
    const source = join(dir, 'tree')
    await mkdir(source)
    await writeFile(join(source, LARGE), noise(LARGE, LARGE_BYTES))
    await writeFile(join(source, 'rest'), 'what is missing until all is read')
    const list = join(dir, 'list')
    await writeFile(list, `${LARGE}\n`)
    const image = await serveTree({ source, dir: join(dir, 'image'), link, defer })
    return MEASURED.map((rung) => {
      const mounting = {
        image: image.reference,
        dir: join(dir, rung),
        cache: join(dir, `cache-${rung}`),
        run: join(dir, 'run'),
        rung,
      }
      const readOnce = async (name: string, then?: () => Promise<unknown>): Promise<Sample> => {
        await forgetBelow(probe, mounting.cache)
        const mounted = await mountImage(mounting)
        try {
          const file = join(mounting.dir, LARGE)
          const { devices } = mounted
          await probe.list(probe.path, mounting.dir, list)
          const mib = async (files: readonly string[]) =>
            files.length === 0 ? 0 : (await probe.pages('resident', files)) / (1 << 20)
          const [own, device, cache] = [
            await mib([file]),
            await mib(devices),
            await mib(await cacheFiles(mounting.cache)),
          ]
          await then?.()
          return {
            [`${name} file`]: own,
            [`${name} device`]: device,
            [`${name} cache`]: cache,
            [`${name} all`]: own + device + cache,
          }
        } finally {
          await mounted.stop()
        }
      }
      return {
        name: SUBJECTS[rung],
        open: async () => async () => {
          await rm(mounting.cache, { recursive: true, force: true })
          const cold = await readOnce('cold')
          const kept = await readOnce('kept', () => probe.tree('readall', mounting.dir))
          return { ...cold, ...kept, ...(await readOnce('complete')) }
        },
      }
    })
  },
}

/** What an earlier mount left in memory does not count; that of a new cache is nothing. */
async function forgetBelow(probe: Probe, cache: string): Promise<void> {
  const files = await cacheFiles(cache)
  for (const each of files) {
    const handle = await open(each)
    await handle.sync().finally(() => handle.close()) // dirty pages cannot be given back
  }
  if (files.length > 0) await probe.pages('forget', files)
}

/** The devices in the agent's cache; a merged tree has none of its own. */
async function cacheFiles(cache: string): Promise<string[]> {
  const files = await readdir(join(cache, 'trees'), { recursive: true }).catch(() => []) // no cache yet
  return files.flatMap((each) => (each.endsWith('/device') ? [join(cache, 'trees', each)] : []))
}
