// How a start grows with the entries of its image.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { lazylayerAgent } from '../agents.ts'
import { growth } from '../growth.ts'
import { TAG } from '../image.ts'

const SIZES = [1_000, 10_000, 100_000, 500_000]
const FILES_A_DIRECTORY = 100
/** Small files share chunks of this size, as writers for such images make them. */
const CHUNK_BYTES = 64 << 10

export const growthEntries = growth({
  name: 'growth-entries',
  unit: 'entries',
  explains: `An eStargz image of one layer of files of a few bytes, ${FILES_A_DIRECTORY} a directory, over the link of --link. "shown": from when the agent, which runs before, with an
    empty cache, is asked for the image, until it is mounted and listed; "read": then the first and the last file are read; "walk": every
    entry is listed and looked at. Requests, bytes, CPU time and peak memory of the agent are those until then.`,
  agents: [lazylayerAgent()],
  sizes: SIZES.map((count) => ({
    count,
    write: async (dir: string) => {
      const options = { level: 1, minChunkSize: CHUNK_BYTES }
      await writeImage({ dir, tag: TAG, layers: [{ kind: 'estargz', entries: entries(count), options }] })
    },
  })),
  async act([layer = ''], probe, dir, count) {
    const last = count / (FILES_A_DIRECTORY + 1) - 1
    await writeFile(join(dir, 'list'), `d0/f0\nd${Math.floor(last)}/f0\n`)
    const { seconds } = await probe.list(probe.path, layer, join(dir, 'list'))
    const walk = await probe.tree('walk', layer)
    return { 'read s': seconds, 'walk entries/s': walk.entries / walk.seconds }
  },
})

/** Directories with their files, `count` in all. */
function* entries(count: number): Generator<SourceEntry> {
  for (let i = 0; i < count; i++) {
    const directory = Math.floor(i / (FILES_A_DIRECTORY + 1))
    const file = (i % (FILES_A_DIRECTORY + 1)) - 1
    if (file < 0) yield { path: `d${directory}`, type: 'dir' }
    else yield { path: `d${directory}/f${file}`, type: 'file', content: Buffer.from(`${directory}/${file}`) }
  }
}
