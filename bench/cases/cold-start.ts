// How long a program waits that starts from an image which is still in the registry.
import { execFile } from 'node:child_process'
import { chmod, copyFile, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Case, Sample, Turn } from '../case.ts'
import { type Served, serveTree } from '../image.ts'
import type { Probe } from '../probe.ts'
import { mountImage } from '../product.ts'
import { writeTree } from '../tree.ts'

const run = promisify(execFile)

/** About 48 MB in 3,000 files, of which the program reads every 15th: 6.4 % is what a start reads (Slacker, FAST '16). */
const SHAPE = { directories: 60, filesEach: 50, fileMinBytes: 500, fileMaxBytes: 32_000 }
const READ_EVERY = 15
const PROGRAM = 'start'
/** A full pull at the slowest sensible link. */
const PULL_TIMEOUT_MS = 300_000

export const coldStart: Case = {
  name: 'cold-start',
  explains: `A static program of 0.8 MB is started from an image of 3,000 files and about 48 MB, reads 200 of the files (6.5 % of the
    bytes) and exits; nothing is cached, and between registry and agent lies the link of --link. "first byte" is when the first
    of these files was read, "exit" when the program ended, both from when the command was started; requests and bytes are the
    registry's and the link's count until then (prefetch may be under way). In "prioritized" the image says
    which files a start needs, in "lazylayer" it does not. "full pull" fetches all, unpacks it, then starts the program.`,
  // times: the other's over ours, so that more is better
  ratios: [
    { metric: 'exit s', of: 'full pull', over: 'lazylayer' },
    { metric: 'exit s', of: 'full pull', over: 'lazylayer, prioritized' },
    { metric: 'first byte s', of: 'full pull', over: 'lazylayer' },
    { metric: 'MB down', of: 'full pull', over: 'lazylayer' },
  ],
  async prepare({ dir, probe, link, defer }) {
    const source = join(dir, 'tree')
    const files = await writeTree(source, SHAPE)
    await copyFile(probe.path, join(source, PROGRAM))
    await chmod(join(source, PROGRAM), 0o755)
    const wanted = files.filter((_, i) => i % READ_EVERY === 0)
    const lists = { first: join(dir, 'first'), all: join(dir, 'all') }
    await writeFile(lists.first, `${wanted[0]}\n`)
    await writeFile(lists.all, `${wanted.join('\n')}\n`)
    let served: Promise<Served> | undefined
    const plain = () => {
      served ??= serveTree({ source, dir: join(dir, 'plain'), link, defer }) // of both that start from it
      return served
    }
    const prioritized = () =>
      serveTree({ source, dir: join(dir, 'prioritized'), link, defer, prioritized: [PROGRAM, ...wanted] })
    return [
      { name: 'full pull', open: async () => fullPull(await plain(), dir, probe, lists) },
      { name: 'lazylayer', open: async () => lazylayer(await plain(), dir, probe, lists) },
      { name: 'lazylayer, prioritized', open: async () => lazylayer(await prioritized(), dir, probe, lists) },
    ]
  },
}

interface Lists {
  first: string
  all: string
}

/** Reads the first file, then runs the program from `root`. */
async function start(image: Served, root: string, probe: Probe, lists: Lists, begin: Begin): Promise<Sample> {
  await probe.list(probe.path, root, lists.first)
  const firstByte = performance.now()
  const { files } = await probe.list(join(root, PROGRAM), root, lists.all)
  const exit = performance.now()
  if (files !== (SHAPE.directories * SHAPE.filesEach) / READ_EVERY) throw new Error(`the program read ${files} files`)
  const counters = image.counters()
  return {
    'first byte s': (firstByte - begin.at) / 1000,
    'exit s': (exit - begin.at) / 1000,
    requests: counters.requests - begin.counters.requests,
    'MB down': (counters.bytesDown - begin.counters.bytesDown) / 1e6,
  }
}

interface Begin {
  at: number
  counters: ReturnType<Served['counters']>
}

function fullPull(image: Served, dir: string, probe: Probe, lists: Lists): Turn {
  const root = join(dir, 'pulled')
  const program = join(import.meta.dirname, '../full-pull.ts')
  return async () => {
    await rm(root, { recursive: true, force: true })
    await mkdir(root)
    const begin = { at: performance.now(), counters: image.counters() }
    await run(process.execPath, [program, image.origin, image.repository, image.tag, root], {
      timeout: PULL_TIMEOUT_MS,
    })
    return await start(image, root, probe, lists, begin)
  }
}

function lazylayer(image: Served, dir: string, probe: Probe, lists: Lists): Turn {
  const mounting = { image: image.reference, dir: join(dir, 'mnt'), cache: join(dir, 'cache'), run: join(dir, 'run') }
  return async () => {
    await rm(mounting.cache, { recursive: true, force: true })
    const begin = { at: performance.now(), counters: image.counters() }
    const mounted = await mountImage({ ...mounting, rung: 'erofs' })
    try {
      return await start(image, mounting.dir, probe, lists, begin)
    } finally {
      await mounted.stop()
    }
  }
}
