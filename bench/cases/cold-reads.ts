// How fast bytes come that nobody has yet, without a link between: whole layers, one large file, small files one by one.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Agent, lazylayerAgent, nydusdAgent, stargzAgent } from '../agents.ts'
import type { Case, Context, Sample, Subject } from '../case.ts'
import { NO_DELAY, type Served, TAG, writeTreeImage } from '../image.ts'
import { serveNear } from '../near.ts'
import { writeNydusImage } from '../nydus-image.ts'
import { BY_EROFS } from '../product.ts'
import { PY, pyLayout } from '../py-image.ts'
import { noise, writeTree } from '../tree.ts'

const SMALL = 'small'
const SHAPE = { directories: 60, filesEach: 50, fileMinBytes: 200, fileMaxBytes: 9000 }
const FILES = SHAPE.directories * SHAPE.filesEach
const LARGE = 'large'
const LARGE_BYTES = 48 << 20

const STARGZ = 'stargz-store'
const NYDUSD = 'nydusd'
const OF_NYDUS = `${BY_EROFS}, nydus`

const SMALL_RATE = 'small files/s'
const LARGE_RATE = 'large MB/s'
const WHOLE_RATE = 'whole MB/s'

export const coldReads: Case = {
  name: 'cold-reads',
  explains: `From nginx on this machine without a link between, each on a new agent with an empty cache that shows the image
    already. "small": 3,000 files of 200 B to 9 KB are opened, read and closed one after the other, as they were written. "large": a file of 48 MiB that does not
    compress is read from start to end. "whole": every file of a real image of two layers (7,469 entries, 170 MB of files), of eStargz only.
    lazylayer and stargz-store have an eStargz image, "${OF_NYDUS}" and nydusd (which checks no digest) a nydus one of the same files. Programs:
    LAZYLAYER_STARGZ_STORE, LAZYLAYER_NYDUSD; the real image: LAZYLAYER_SAMPLES.`,
  link: NO_DELAY,
  rounds: 10,
  ratios: [
    { metric: SMALL_RATE, of: BY_EROFS, over: NYDUSD, atLeast: 1 },
    { metric: SMALL_RATE, of: OF_NYDUS, over: NYDUSD, atLeast: 1 },
    { metric: SMALL_RATE, of: BY_EROFS, over: STARGZ },
    { metric: LARGE_RATE, of: BY_EROFS, over: STARGZ, atLeast: 3 },
    { metric: LARGE_RATE, of: OF_NYDUS, over: NYDUSD },
    { metric: WHOLE_RATE, of: BY_EROFS, over: STARGZ, atLeast: 5 },
  ],
  async prepare(context) {
    const { dir } = context
    const source = join(dir, 'tree')
    const files = await writeTree(join(source, SMALL), SHAPE)
    await writeFile(join(source, LARGE), noise(LARGE, LARGE_BYTES))
    await writeFile(join(dir, 'small-list'), files.map((path) => `${SMALL}/${path}\n`).join(''))
    await writeFile(join(dir, 'large-list'), `${LARGE}\n`)
    const estargz = once(async () => {
      const layout = join(dir, 'estargz')
      await writeTreeImage({ source, dir: layout })
      return await serveNear(layout, TAG, context)
    })
    const nydus = once(async () => {
      const layout = join(dir, 'nydus')
      await writeNydusImage({ source, dir: layout, tag: TAG })
      return await serveNear(layout, TAG, context)
    })
    const real = once(() => serveNear(pyLayout(), PY.tag, context))
    return [
      reader(context, nydusdAgent, nydus),
      reader(context, lazylayerAgent(OF_NYDUS, ['--diffid', 'claimed']), nydus),
      reader(context, stargzAgent, estargz, real),
      reader(context, lazylayerAgent(), estargz, real),
    ]
  },
}

type Image = () => Promise<Served>

/** Made when the first subject needs it. */
function once(make: Image): Image {
  let made: Promise<Served> | undefined
  return () => {
    made ??= make()
    return made
  }
}

function reader({ dir, probe }: Context, agent: Agent, image: Image, real?: Image): Subject {
  /** `act` on a new agent that shows `of`. @returns bytes a second, of what it says that it read */
  const cold = async <T>(
    of: Image,
    act: (layers: readonly string[]) => Promise<T>,
  ): Promise<T & { requests: number }> => {
    const served = await of()
    const running = await agent.start(dir, served)
    try {
      const layers = await running.show(served)
      const before = served.counters().requests
      const read = await act(layers)
      return { ...read, requests: served.counters().requests - before }
    } finally {
      await running.stop()
    }
  }
  const list = (name: string) => (layers: readonly string[]) =>
    probe.list(probe.path, layers[0] as string, join(dir, name)) // an image has a layer
  return {
    name: agent.name,
    ...(agent.version === undefined ? {} : { version: agent.version }),
    open: async () => async (): Promise<Sample> => {
      const small = await cold(image, list('small-list'))
      if (small.files !== FILES) throw new Error(`${small.files} files of ${FILES} were read`)
      const large = await cold(image, list('large-list'))
      if (large.bytes !== LARGE_BYTES) throw new Error(`${large.bytes} bytes of ${LARGE_BYTES} were read`)
      const sample = {
        [SMALL_RATE]: small.files / small.seconds,
        'small requests': small.requests,
        [LARGE_RATE]: large.bytes / large.seconds / 1e6,
        'large requests': large.requests,
      }
      if (real === undefined) return sample
      const whole = await cold(real, async (layers) => {
        let [bytes, seconds] = [0, 0]
        for (const each of layers) {
          const read = await probe.tree('readall', each)
          bytes += read.bytes
          seconds += read.seconds
        }
        return { bytes, seconds }
      })
      return { ...sample, [WHOLE_RATE]: whole.bytes / whole.seconds / 1e6, 'whole requests': whole.requests }
    },
  }
}
