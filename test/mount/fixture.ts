// Layers made by our own writer, kept in memory, and a cache in a folder of the test's own.
import { readdir, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, onTestFinished } from 'vitest'
import { type EstargzOptions, writeEstargz } from '../../src/build/estargz.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { CodecPool } from '../../src/codec/pool.ts'
import { Budget } from '../../src/fetch/budget.ts'
import { TAR_SIZE, TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import type { Format } from '../../src/format/format.ts'
import { IndexBuilder } from '../../src/format/parser.ts'
import type { Blob } from '../../src/image/blob.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import type { OpenLayer } from '../../src/layer/layer.ts'
import { Layers } from '../../src/layer/layers.ts'
import { Examinations } from '../../src/proof/examinations.ts'
import type { Locks } from '../../src/store/locks.ts'
import { Store } from '../../src/store/store.ts'
import { ErofsReader } from '../../src/tree/erofs-reader.ts'
import { OCI_LAYER } from '../fake/image.ts'
import { MemoryBlob } from '../format/memory-blob.ts'
import { folder } from '../store/folder.ts'

export interface MadeLayer {
  descriptor: Descriptor
  blob: MemoryBlob
}

const bytes = (of: string) => new TextEncoder().encode(of)

/** Of all caches of a test file: to start a thread takes longer than most tests. */
const codecs = new CodecPool({ threads: 1 })
const ordinary = new IndexBuilder()
afterAll(() => Promise.all([codecs.close(), ordinary.close()]))

/** An eStargz layer with these files. */
export async function lazyLayer(files: Record<string, string>, options: EstargzOptions = {}): Promise<MadeLayer> {
  const entries = Object.entries(files).map(
    ([path, content]): SourceEntry => ({ path, type: 'file', content: bytes(content) }),
  )
  const path = join(await folder(), 'blob')
  const { digest, size, tocDigest, uncompressedSize } = await writeEstargz(entries, path, options)
  const annotations = { [TOC_DIGEST]: tocDigest, [TAR_SIZE]: `${uncompressedSize}` }
  return { descriptor: { mediaType: OCI_LAYER, digest, size, annotations }, blob: new MemoryBlob(await readFile(path)) }
}

/** Bytes that say they are `descriptor`'s. */
export function posing(as: Descriptor, { blob }: MadeLayer): Blob {
  return { digest: as.digest, size: as.size, read: (range) => blob.read(range) }
}

/**
 * A process on the cache in `dir`; several one after the other are restarts.
 * @param more formats that layers may be in, and the worker that knows them; how many layers stay open that nobody has open
 */
export async function openCache(
  dir: string,
  locks: Locks = { tryLock: () => true },
  more: {
    formats?: readonly Format[]
    worker?: string
    idleMax?: number
    credentials?: (repository: string) => Promise<string>
  } = {},
) {
  const warnings: string[] = []
  const log = (message: string) => warnings.push(message)
  const store = await Store.open(dir, locks, log)
  const { worker, idleMax, credentials = async () => 'a login', ...known } = more
  const builder = worker === undefined ? ordinary : new IndexBuilder({ worker })
  const closing = new AbortController()
  const examinations = new Examinations(store, builder, log, closing.signal)
  const parts = { store, codecs, builder, budget: new Budget(), examiner: examinations, closing, log, ...known }
  const layers = new Layers({ ...parts, answers: () => true, credentials }, idleMax)
  let closed = false
  const close = async () => {
    if (closed) return
    closed = true
    await layers.close()
    if (builder !== ordinary) await builder.close()
    await store.close()
  }
  onTestFinished(close)
  const before = codecs.counters()
  /** What was done since it was opened. */
  const done = () => {
    const now = codecs.counters()
    return {
      decoded: now.decoded - before.decoded,
      copied: now.copied - before.copied,
      corrupt: now.corrupt - before.corrupt,
    }
  }
  return { store, layers, done, examinations, builder, warnings, close }
}

/** What a program would read of a file, fetched as it would be. */
export async function contents(layer: OpenLayer, path: string): Promise<string> {
  const image = await layer.openImage()
  const reader = new ErofsReader(new Uint8Array(await image.readFile()))
  await image.close()
  const nid = reader.resolve(path)
  if (nid === undefined) throw new Error(`the layer has no ${path}`)
  const { size } = reader.attributes(nid)
  const { offset } = reader.content(nid) ?? { offset: 0 }
  await layer.filler.fill(layer.chunks.chunksAt(offset, offset + size), 'demand')
  const device = await readFile(`/proc/self/fd/${layer.slots.deviceFd}`)
  return device.subarray(offset, offset + size).toString()
}

/** Files below `dir` that this process has open. */
export async function openFiles(dir: string): Promise<string[]> {
  const links = await Promise.all(
    (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => '')),
  )
  return links.filter((each) => each.startsWith(`${dir}/`)).sort()
}
