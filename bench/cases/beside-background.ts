// How long a program waits for a file while the same agent fills in the rest of another image.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeImage } from '../../src/build/layout-writer.ts'
import { lazylayerAgent } from '../agents.ts'
import type { Case, Context, Sample, Subject } from '../case.ts'
import { type Served, serveLayout } from '../image.ts'
import { noise } from '../tree.ts'

const ALONE = 'alone'
const BESIDE = 'beside a fill'
const P99 = 'p99 ms'

/** Files that are read one by one. Distinct and each a chunk, far apart, so that no two come together. */
const READ = { files: 100, bytes: 64 << 10 }
/** A fill of it takes longer than that reading. */
const FILLED = { files: 32, bytes: 4 << 20 }

export const besideBackground: Case = {
  name: 'beside-background',
  explains: `Of one image ${READ.files} files of 64 KiB are read, one after the other, nothing of them cached, over the link of --link, by a program that notes what each takes;
    "${BESIDE}": of another image of 134 MB, from the same registry over the same link, one file was read before, so that the agent has begun to fill in its rest.
    "fill MB" is what came down the link that the reader had no use for.`,
  rounds: 10,
  ratios: [{ metric: P99, of: ALONE, over: BESIDE, atLeast: 1 / 1.5 }],
  async prepare(context) {
    const layout = join(context.dir, 'images')
    for (const [tag, { files, bytes }] of [
      ['read', READ],
      ['filled', FILLED],
    ] as const) {
      const entries = Array.from({ length: files }, (_, i) => ({
        path: `file-${i}`,
        type: 'file' as const,
        content: noise(`${tag}-${i}`, bytes),
      }))
      await writeImage({ dir: layout, tag, layers: [{ kind: 'estargz', entries, options: { level: 0 } }] })
    }
    const image = await serveLayout(layout, 'read', context.defer, context.link)
    const other = { ...image, reference: image.reference.replace(/read$/, 'filled') }
    return [subject(ALONE, context, image), subject(BESIDE, context, image, other)]
  },
}

function subject(name: string, { dir, probe }: Context, image: Served, other?: Served): Subject {
  const lists = { one: join(dir, 'one'), all: join(dir, 'all') }
  const agent = lazylayerAgent()
  const turn = async (): Promise<Sample> => {
    await writeFile(lists.one, 'file-0\n')
    // from the back to the front and every other one first, which no read-ahead guesses
    const order = [1, 0].flatMap((odd) =>
      Array.from({ length: READ.files / 2 }, (_, i) => READ.files - 1 - odd - 2 * i),
    )
    await writeFile(lists.all, order.map((i) => `file-${i}\n`).join(''))
    const running = await agent.start(dir, image)
    try {
      const [layer = ''] = await running.show(image)
      if (other !== undefined) {
        const [filled = ''] = await running.show(other)
        await probe.list(probe.path, filled, lists.one)
      }
      const before = image.counters().bytesDown
      const { median, p99 } = await probe.times(layer, lists.all)
      const unused = image.counters().bytesDown - before - READ.files * READ.bytes
      return { 'median ms': median * 1000, [P99]: p99 * 1000, 'fill MB': Math.max(0, unused) / 1e6 }
    } finally {
      await running.stop()
    }
  }
  return { name, open: async () => turn }
}
