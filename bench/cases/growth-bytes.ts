// How a start grows with the size of its image.
import { mkdir, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { lazylayerAgent, stargzAgent } from '../agents.ts'
import { growth } from '../growth.ts'
import { writeTreeImage } from '../image.ts'
import { noise } from '../tree.ts'

/** MB of files. */
const SIZES = [50, 500, 5_000]
/** A chunk, as writers make them. */
const FILE_BYTES = 4 << 20
/** The rest of a file is zeros, so that an image of 5 GB is made in a minute. */
const NOISE_BYTES = 256 << 10
const READ = 10

export const growthBytes = growth({
  name: 'growth-bytes',
  unit: 'MB',
  explains: `An eStargz image of one layer of files of 4 MiB, of which a sixteenth does not compress and the rest is zeros (so its blob has some 6.5 %
    of the size; what is read is decoded and checked in full), over the link of --link. "shown": from when the agent, which runs before,
    with an empty cache, is asked for the image, until it is mounted and listed; "read": then ${READ} files from all over it are read, one
    after the other. Requests, bytes, CPU time and peak memory of the agent are those until then. stargz-store: LAZYLAYER_STARGZ_STORE.`,
  agents: [stargzAgent, lazylayerAgent()],
  sizes: SIZES.map((count) => ({ count, write: (dir: string) => write(dir, count) })),
  async act([layer = ''], probe, dir, count) {
    const files = filesOf(count)
    const list = Array.from({ length: READ }, (_, i) => `f${Math.floor((i * files) / READ)}\n`)
    await writeFile(join(dir, 'list'), list.join(''))
    const { seconds } = await probe.list(probe.path, layer, join(dir, 'list'))
    return { 'read s': seconds }
  },
})

const filesOf = (megabytes: number) => Math.floor((megabytes * 1e6) / FILE_BYTES)

async function write(dir: string, megabytes: number): Promise<void> {
  const source = `${dir}-tree`
  await mkdir(source)
  for (let i = 0; i < filesOf(megabytes); i++) {
    const file = join(source, `f${i}`)
    await writeFile(file, noise(`f${i}`, NOISE_BYTES))
    await truncate(file, FILE_BYTES) // a hole
  }
  await writeTreeImage({ source, dir })
}
