// How much memory an agent needs.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rm, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { folderEntries } from '../../src/build/folder.ts'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { Case, Context, Sample, Subject } from '../case.ts'
import { type Served, serveLayout } from '../image.ts'
import { BY_EROFS, type Store, serveStore } from '../product.ts'
import { anonymousMb } from '../usage.ts'

const run = promisify(execFile)

/** MB of anonymous memory: RssAnon of proc_pid_status(5). What is mapped from files is shared, and goes when others need it. */
const EMPTY = 'empty MB'
const START = 'start MB'
/** 1: all of it was read within the limit. */
const LIMITED = 'read in 200 MB'
const BOUND = 'bound'

/** A Python image of two eStargz layers, which a tool of this field has optimized; below LAZYLAYER_SAMPLES. */
const LAYOUT = 'images/py-esgz'
const TAG = 'py'
/** Layers of an image with a language and its packages: folders of this machine, as far as they are there, with some 20,000 files. */
const LARGE = [
  '/usr/bin',
  '/usr/include',
  '/usr/lib/gcc',
  '/usr/lib/python3',
  join(import.meta.dirname, '../../node_modules'),
]
const LIMIT_BYTES = 200 << 20

/** Until what a start wants first has come, from this machine. */
const START_MS = 3_000
const LOOK_MS = 20

export const memory: Case = {
  name: 'memory',
  explains: `Anonymous memory of an agent that serves a store, in MB. "empty": it has served an image of 200 small files, all read, so that
    its codec workers are warm, and nothing else. "start": the most that it had while a real image (Python with its packages, two layers)
    was listed and what it wants first was fetched. "read in 200 MB": an image with layers of this machine's files (programs, headers, compiler,
    Python, packages of Node) is listed and read whole by an agent that may have 200 MB with its part of the page cache (a memory cgroup); 1 if it lived.`,
  rounds: 3,
  ratios: [
    { metric: EMPTY, of: BOUND, over: BY_EROFS, atLeast: 1 },
    { metric: START, of: BOUND, over: BY_EROFS, atLeast: 1 },
    { metric: LIMITED, of: BY_EROFS, over: BOUND, atLeast: 1 },
  ],
  async prepare(context) {
    return [
      { name: BOUND, open: async () => async () => ({ [EMPTY]: 110, [START]: 140, [LIMITED]: 1 }) },
      agent(context),
    ]
  },
}

function agent(context: Context): Subject {
  return {
    name: BY_EROFS,
    async open() {
      const small = await smallImage(context)
      const samples = process.env.LAZYLAYER_SAMPLES
      if (!samples) throw new Error(`LAZYLAYER_SAMPLES is not set: the directory that has ${LAYOUT}`)
      const real = await serveLayout(join(samples, LAYOUT), TAG, context.defer)
      const large = await largeImage(context)
      return async (): Promise<Sample> => ({
        [EMPTY]: await withStore(context, [], (store) => emptyMb(store, small)),
        [START]: await withStore(context, [], (store) => startMb(store, real)),
        [LIMITED]: await readLimited(context, large),
      })
    },
  }
}

/** A new agent with an empty cache. */
async function withStore<T>(
  { dir }: Context,
  through: readonly string[],
  work: (store: Store) => Promise<T>,
): Promise<T> {
  const cache = join(dir, 'cache')
  const store = await serveStore({ dir: join(dir, 'store'), cache, run: join(dir, 'run'), rung: 'erofs' }, through)
  try {
    return await work(store)
  } finally {
    await store.stop()
    await rm(cache, { recursive: true, force: true })
  }
}

async function emptyMb(store: Store, { reference }: Served): Promise<number> {
  await readAll(await store.list(reference))
  return await anonymousMb((await store.status()).pid)
}

async function startMb(store: Store, { reference }: Served): Promise<number> {
  const { pid } = await store.status()
  const over = new AbortController()
  let most = 0
  const watching = (async () => {
    while (!over.signal.aborted) {
      most = Math.max(most, await anonymousMb(pid))
      await sleep(LOOK_MS)
    }
  })()
  await store.list(reference)
  await sleep(START_MS)
  over.abort()
  await watching
  return most
}

async function readLimited(context: Context, { reference }: Served): Promise<number> {
  const group = await memoryGroup(`lazylayer-bench-${process.pid}`)
  try {
    const inGroup = ['sh', '-c', `echo $$ > ${group}/cgroup.procs && exec "$@"`, 'sh']
    return await withStore(context, inGroup, async (store) => {
      await readAll(await store.list(reference))
      await store.status() // it answers
      return 1
    }).catch(() => 0) // it was killed
  } finally {
    await rmdir(group)
  }
}

/** A new memory cgroup with the limit, of version 2 or 1. */
async function memoryGroup(name: string): Promise<string> {
  const isOne = await readFile('/sys/fs/cgroup/memory/memory.limit_in_bytes').then(
    () => true,
    () => false,
  )
  const group = join(isOne ? '/sys/fs/cgroup/memory' : '/sys/fs/cgroup', name)
  await mkdir(group)
  await writeFile(join(group, isOne ? 'memory.limit_in_bytes' : 'memory.max'), String(LIMIT_BYTES))
  return group
}

/** Every file below, as a program would. */
async function readAll(directories: readonly string[]): Promise<void> {
  for (const each of directories) {
    await run('sh', ['-c', 'find "$1" -type f -print0 | xargs -0 -n 64 cat > /dev/null 2>&1', 'sh', each])
  }
}

async function smallImage({ dir, defer }: Context): Promise<Served> {
  const layout = join(dir, 'small')
  const entries = Array.from({ length: 200 }, (_, i) => ({
    path: `file-${i}`,
    type: 'file' as const,
    content: new Uint8Array(20_000).fill(i),
  }))
  await writeImage({ dir: layout, tag: 'small', layers: [{ kind: 'estargz', entries }] })
  return await serveLayout(layout, 'small', defer)
}

async function largeImage({ dir, defer }: Context): Promise<Served> {
  const layout = join(dir, 'large')
  const layers = LARGE.filter(existsSync).map((folder) => ({
    kind: 'estargz' as const,
    entries: folderEntries(folder, folder.slice(1)),
    options: { level: 1 },
  }))
  await writeImage({ dir: layout, tag: 'large', layers })
  return await serveLayout(layout, 'large', defer)
}
