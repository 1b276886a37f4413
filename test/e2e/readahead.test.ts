// What the kernel's read-ahead makes of a program's reads, over a link with a round trip; and what a read costs in kernel memory.
import { mkdir, mkdtemp, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { LinkShape } from '../../bench/case.ts'
import { type Served, serveTree } from '../../bench/image.ts'
import { layoutOrder, shuffled } from '../../bench/layout-order.ts'
import { type Link, openLink } from '../../bench/link.ts'
import { noise, writeTree } from '../../bench/tree.ts'
import type { Status } from '../../src/agent/socket.ts'
import { PYTHON } from '../fixtures/listing.ts'
import { type Agent, startAgent } from './agent.ts'
import { succeed } from './engines/command.ts'
import { lacking, samples } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { serveLayout } from './registry.ts'
import { ALL, LONG } from './sample.ts'

const LINK = { roundTripMs: 20, bytesPerSecond: 25e6 }
const LARGE_BYTES = 48 << 20
/** Small, so that what is fetched shows how far was read ahead, and not how large chunks are. */
const CHUNK_BYTES = 64 << 10
const SMALL = { files: 200, bytes: 10 << 10 }
/**
 * Read one after the other, a page each, they make the kernel read ahead in windows that double from 4 pages to 1 MiB, each asked for
 * when the first page of the one before is read: the last page that does so is the 757th, and what it asks for ends with the 1268th.
 */
const WANTED = { files: 770, bytes: 4 << 10 }
/** A member's header and trailer, and the 5 bytes that every 64 KiB of what does not compress cost: under one percent. */
const STORED = 1.01
/** The kernel goes on reading after the reader has what it wanted: until so long nothing more is fetched. */
const SETTLE_MS = 500

// arguments: file, offset
const FAULT = `
import mmap, sys
with open(sys.argv[1], 'rb') as file:
    mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ)[int(sys.argv[2])]
`
// arguments: directory, a file that names files below it, a line each
const READ = `
import os, sys
for path in open(sys.argv[2]).read().splitlines():
    with open(os.path.join(sys.argv[1], path), 'rb', buffering=0) as file:
        while file.read(1 << 20): pass
`
// arguments: files; prints how many MiB of each are in memory
const RESIDENT = `
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
for path in sys.argv[1:]:
    file = os.open(path, os.O_RDONLY)
    size = os.fstat(file).st_size
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file, 0)
    if libc.mincore(at, size, pages) != 0: sys.exit(os.strerror(ctypes.get_errno()))
    print(sum(each & 1 for each in pages.raw) * mmap.PAGESIZE / 2**20)
`

const place = samples()
/** 2,000 files from 1 to 60 KiB. */
const WALKED = { directories: 50, filesEach: 40, fileMinBytes: 1 << 10, fileMaxBytes: 60 << 10 }

suite('read-ahead by the kernel', lacking(['python3', 'mount']), () => {
  let work: WorkDirectory
  let image: Served
  let agent: Agent | undefined
  const closing: (() => Promise<void>)[] = []

  beforeAll(async () => {
    work = await makeWorkDirectory()
    const source = join(work.path, 'tree')
    await mkdir(source)
    await writeFile(join(source, 'large'), noise('large', LARGE_BYTES))
    for (let i = 0; i < SMALL.files; i++) await writeFile(join(source, `small${i}`), noise(`small${i}`, SMALL.bytes))
    const defer = (close: () => Promise<void>) => void closing.push(close)
    image = await serveTree({ source, dir: join(work.path, 'image'), chunkSize: CHUNK_BYTES, link: LINK, defer })
  })
  afterEach(async () => {
    await agent?.stop()
    agent = undefined
  })
  afterAll(async () => {
    for (const close of closing.reverse()) await close()
    await work?.remove()
  })

  /** On a new directory, with an empty cache. */
  async function mountNew(reference: string, rung = 'erofs'): Promise<{ agent: Agent; dir: string; cache: string }> {
    const home = await mkdtemp(join(work.path, 'm-'))
    const [dir, cache] = [join(home, 'mnt'), join(home, 'cache')]
    await mkdir(dir)
    agent = await startAgent(work.path, dir, [
      'mount',
      '--mount',
      rung,
      '--cache',
      cache,
      '--tls-verify=false',
      reference,
      dir,
    ])
    return { agent, dir, cache }
  }

  /** Bytes fetched and READs answered because of `act`. */
  async function caused(by: Agent, act: () => Promise<unknown>): Promise<{ bytes: number; reads: number }> {
    const before = await by.status()
    await act()
    let after = await by.status()
    for (let last: Status | undefined; !isDeepStrictEqual(last?.bytes, after.bytes); ) {
      last = after
      await setTimeout(SETTLE_MS)
      after = await by.status()
    }
    const reads = (after.counters.reads ?? Number.NaN) - (before.counters.reads ?? Number.NaN)
    return { bytes: after.bytes.fetched - before.bytes.fetched, reads }
  }

  async function readAll(dir: string, paths: readonly string[]): Promise<void> {
    const list = join(work.path, 'list')
    await writeFile(list, `${paths.join('\n')}\n`)
    await succeed(PYTHON, ['-c', READ, dir, list])
  }

  test.each(['erofs', 'fuse'])(
    'a page fault of a mapped file fetches no more than 256 KiB and the chunk it is in: %s',
    async (rung) => {
      const { agent, dir } = await mountNew(image.reference, rung)
      // neither a chunk's first page nor its last, and far from all that was read
      for (const offset of [LARGE_BYTES / 2 + 5 * 4096, LARGE_BYTES / 4 + 9 * 4096]) {
        const { bytes, reads } = await caused(agent, () =>
          succeed(PYTHON, ['-c', FAULT, join(dir, 'large'), String(offset)]),
        )
        process.stderr.write(`a page fault: ${bytes} bytes fetched, ${reads} READs\n`)
        expect(bytes).toBeGreaterThan(CHUNK_BYTES)
        expect(bytes).toBeLessThanOrEqual(((256 << 10) + CHUNK_BYTES) * STORED)
      }
    },
  )

  test.each(['erofs', 'fuse'])(
    'a file of 10 KiB fetches its own chunk and nothing of its neighbourhood: %s',
    async (rung) => {
      const { agent, dir, cache } = await mountNew(image.reference, rung)
      const small = (await layoutOrder(cache)).filter(({ path }) => path.startsWith('small'))
      for (const { path } of [small[50], small[120]] as { path: string }[]) {
        const { bytes, reads } = await caused(agent, () => readAll(dir, [path]))
        expect(reads).toBe(1)
        expect(bytes).toBeGreaterThan(SMALL.bytes)
        expect(bytes).toBeLessThan(SMALL.bytes * 1.05)
      }
    },
  )

  test('files that the image wants first are read without a request for what lies behind them', async () => {
    const source = join(work.path, 'wanted')
    await mkdir(source)
    const wanted = Array.from({ length: WANTED.files }, (_, i) => `wanted${i}`)
    for (const path of wanted) await writeFile(join(source, path), noise(path, WANTED.bytes))
    await writeFile(join(source, 'behind'), noise('behind', 4 << 20))
    const { reference } = await serveTree({
      source,
      dir: join(work.path, 'wanted-image'),
      prioritized: wanted,
      chunkSize: CHUNK_BYTES,
      defer: (close) => void closing.push(close),
    })
    const { agent, dir } = await mountNew(reference)
    const ready = async () => (await agent.status()).bytes.verified
    await expect.poll(ready).toBe(WANTED.files * WANTED.bytes)
    const { bytes, reads } = await caused(agent, () => readAll(dir, wanted))
    process.stderr.write(`${WANTED.files} wanted files: ${reads} READs, ${bytes} bytes fetched\n`)
    expect(reads).toBeGreaterThan(0)
    expect(bytes).toBe(0)
  })

  test('one read of 48 MiB costs that much twice in kernel memory, not three times', async () => {
    const { agent, dir, cache } = await mountNew(image.reference)
    await readAll(dir, ['large'])
    const hidden = (await agent.status()).mounts.find(({ kind }) => kind === 'fuse')?.dir ?? ''
    const devices = join(hidden, '.devices')
    const [device = ''] = await readdir(devices)
    const files = [join(dir, 'large'), join(devices, device), join(cache, 'trees', device, 'device')]
    const [mounted = 0, served = 0, kept = 0] = (await succeed(PYTHON, ['-c', RESIDENT, ...files]))
      .split('\n')
      .map(Number)
    process.stderr.write(`a read of 48 MiB: file ${mounted}, device ${served}, cache file ${kept} MiB in memory\n`)
    expect(mounted).toBeGreaterThan(40) // else this measures nothing
    expect(served).toBeLessThan(52)
    // what was fetched last is still being written, and a disk may be slow
    expect(kept).toBeLessThan(24)
  })

  /** Each over the same link, of a new registry. */
  const walks: {
    title: string
    open(link: LinkShape): Promise<string>
    files: number
    readsMax: number
    /** Also in another order: a larger image tells nothing more. */
    isShuffled: boolean
  }[] = [
    {
      title: `${WALKED.directories * WALKED.filesEach} files`,
      async open(link) {
        const home = await mkdtemp(join(work.path, 'walked-'))
        const [source, dir] = [join(home, 'tree'), join(home, 'image')]
        await writeTree(source, WALKED)
        const defer = (close: () => Promise<void>) => void closing.push(close)
        return (await serveTree({ source, dir, link, defer })).reference
      },
      files: WALKED.directories * WALKED.filesEach,
      readsMax: 120, // 61 MB in READs of 1 MiB
      isShuffled: true,
    },
  ]
  const lacks = 'lacking' in place ? place.lacking : ALL ? undefined : LONG
  if ('lacking' in place || lacks !== undefined) test.skip(`a walk through a real image (${lacks})`, () => undefined)
  else {
    walks.push({
      title: 'a real image',
      async open(link) {
        const registry = await serveLayout(join(place.path, 'images/py-esgz'), await mkdtemp(join(work.path, 'r-')))
        closing.push(() => registry.close())
        const [host = '', port] = registry.host.split(':')
        const over: Link = await openLink({ target: { host, port: Number(port) }, ...link })
        closing.push(() => over.close())
        return `docker://127.0.0.1:${over.port}/py:py`
      },
      files: 6000,
      readsMax: 300, // 160 MB
      isShuffled: false,
    })
  }
  for (const { title, open, files: atLeast, readsMax, isShuffled } of walks) {
    test(`a walk through ${title} in layout order is under ${readsMax} READs`, async () => {
      const { agent, dir, cache } = await mountNew(await open({ roundTripMs: 20, bytesPerSecond: 50e6 }))
      const files = (await layoutOrder(cache)).map(({ path }) => path)
      expect(files.length).toBeGreaterThanOrEqual(atLeast)
      const { bytes, reads } = await caused(agent, () => readAll(dir, files))
      process.stderr.write(`${files.length} files in layout order: ${reads} READs, ${bytes} bytes fetched\n`)
      expect(reads).toBeLessThan(readsMax)
      expect(reads).toBeGreaterThan(readsMax / 3) // of 1 MiB at most
    })

    if (!isShuffled) continue
    test(`a shuffled walk through ${title} takes fewer READs than there are files`, async () => {
      const reference = await open({ roundTripMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY })
      const { agent, dir, cache } = await mountNew(reference)
      const files = shuffled((await layoutOrder(cache)).map(({ path }) => path))
      const { reads } = await caused(agent, () => readAll(dir, files))
      process.stderr.write(`${files.length} files shuffled: ${reads} READs\n`)
      expect(reads).toBeLessThan(files.length)
    })
  }
})
