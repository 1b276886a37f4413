// How many small files are fetched by ever more programs at once.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { lazylayerAgent, stargzAgent } from '../agents.ts'
import { growth } from '../growth.ts'
import { writeTreeImage } from '../image.ts'
import { shuffled } from '../layout-order.ts'
import { writeTree } from '../tree.ts'

const SIZES = [1, 4, 16, 64]
const SHAPE = { directories: 32, filesEach: 50, fileMinBytes: 200, fileMaxBytes: 9000 }
const FILES = SHAPE.directories * SHAPE.filesEach

export const growthReaders = growth({
  name: 'growth-readers',
  unit: 'readers',
  explains: `An eStargz image of one layer of ${FILES.toLocaleString('en')} files of 200 B to 9 KB, over the link of --link, of which nothing is cached: they are all read in a shuffled order,
    dealt out to several programs at once, each of which reads one after the other. stargz-store: LAZYLAYER_STARGZ_STORE.`,
  agents: [stargzAgent, lazylayerAgent()],
  sizes: SIZES.map((count) => ({ count, write })),
  async act([layer = ''], probe, dir, count) {
    const paths = shuffled(pathsOf())
    const lists = await Promise.all(
      Array.from({ length: count }, async (_, reader) => {
        const list = join(dir, `list-${reader}`)
        await writeFile(
          list,
          paths
            .filter((_, i) => i % count === reader)
            .map((path) => `${path}\n`)
            .join(''),
        )
        return list
      }),
    )
    const start = performance.now()
    const read = await Promise.all(lists.map((list) => probe.list(probe.path, layer, list)))
    const seconds = (performance.now() - start) / 1000
    const files = read.reduce((sum, each) => sum + each.files, 0)
    if (files !== FILES) throw new Error(`${files} files of ${FILES} were read`)
    return { 'files/s': files / seconds }
  },
})

/** As writeTree names them. */
const pathsOf = () =>
  Array.from({ length: FILES }, (_, i) => `d${Math.floor(i / SHAPE.filesEach)}/f${i % SHAPE.filesEach}`)

async function write(dir: string): Promise<void> {
  const source = `${dir}-tree`
  await writeTree(source, SHAPE)
  await writeTreeImage({ source, dir })
}
