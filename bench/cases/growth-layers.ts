// How a start grows with the layers of its image.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeImage } from '../../src/build/layout-writer.ts'
import { lazylayerAgent } from '../agents.ts'
import { growth } from '../growth.ts'
import { TAG } from '../image.ts'
import { noise } from '../tree.ts'

const SIZES = [1, 5, 10, 20, 40]
/** Of all layers together. */
const FILES = 2000
const FILE_BYTES = 4096

export const growthLayers = growth({
  name: 'growth-layers',
  unit: 'layers',
  explains: `An eStargz image of ${FILES.toLocaleString('en')} files of 4 KiB, in one layer or dealt out to several, over the link of --link. "shown": from when the agent, which
    runs before, with an empty cache, is asked for the image, until all its layers are mounted and listed; "read": then one file of each
    layer is read, one after the other. Requests, bytes, CPU time and peak memory of the agent are those until then.`,
  agents: [lazylayerAgent()],
  sizes: SIZES.map((count) => ({ count, write: (dir: string) => write(dir, count) })),
  async act(layers, probe, dir) {
    const list = join(dir, 'list')
    await writeFile(list, 'file-0\n')
    let seconds = 0
    for (const each of layers) seconds += (await probe.list(probe.path, each, list)).seconds
    return { 'read s': seconds }
  },
})

async function write(dir: string, count: number): Promise<void> {
  const layers = Array.from({ length: count }, (_, layer) => ({
    kind: 'estargz' as const,
    entries: Array.from({ length: FILES / count }, (_, i) => ({
      path: `file-${i}`,
      type: 'file' as const,
      content: noise(`${layer}/${i}`, FILE_BYTES),
    })),
    options: { level: 1 },
  }))
  await writeImage({ dir, tag: TAG, layers })
}
