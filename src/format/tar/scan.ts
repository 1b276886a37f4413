// Reads a layer's tar once, as a stream: its digest, an index of what is in it, and the records that engines keep of it.
//
// The reading is that of the engines: Go's archive/tar, then the unpacking of containers/storage. A tar is refused where they refuse
// it, and where another reader could understand it in another way: whose tree it is would then depend on who looks.
import { createHash } from 'node:crypto'
import { Failure } from '../../errors.ts'
import { type Digest, finish } from '../../image/digest.ts'
import { ENTRIES_MAX } from '../../tree/entries.ts'
import { quote } from '../path.ts'
import { Crc64 } from './crc64.ts'
import { globalName, memberOf, type Prelude } from './entry.ts'
import { BLOCK_BYTES, isZero, parseHeader, type TarHeader } from './header.ts'
import { checkExtension, extend, isExtension } from './members.ts'
import { parsePax } from './pax.ts'
import { type SplitSink, SplitWriter } from './split.ts'
import { TarStream } from './stream.ts'
import { type Contained, INDEX_MAX_BYTES, IndexWriter, PIECE_BYTES } from './tar-index.ts'

/** Of a record of what follows the end. */
const TRAILER_BYTES = 1 << 20

export interface ScanOptions {
  /** Names the tar in errors. */
  what?: string
  entriesMax?: number
  indexMaxBytes?: number
}

export interface Scan {
  diffId: Digest
  /** Bytes. */
  tarSize: number
  /** What `tar.parseIndex` takes. */
  index: Uint8Array
}

/**
 * Memory is taken by entries, a digest for each PIECE_BYTES of a file, and no more of the tar than a piece at a time.
 * @param sink gets tar-split's records; the tar is not read on while it waits
 * @throws Failure corrupt, limit, unsupported: naming the entry; what `tar` and `sink` throw
 */
export async function scanTar(
  tar: AsyncIterable<Uint8Array>,
  sink: SplitSink,
  options: ScanOptions = {},
): Promise<Scan> {
  const stream = new TarStream(tar)
  try {
    const scanner = new Scanner(stream, new SplitWriter(sink), options)
    return await scanner.scan()
  } finally {
    await stream.close()
  }
}

class Scanner {
  readonly #stream: TarStream
  readonly #split: SplitWriter
  readonly #index: IndexWriter
  readonly #what: string
  readonly #entriesMax: number
  readonly #paths = new Set<string>()

  constructor(stream: TarStream, split: SplitWriter, options: ScanOptions) {
    const { what = 'tar', entriesMax = ENTRIES_MAX, indexMaxBytes = INDEX_MAX_BYTES } = options
    this.#stream = stream
    this.#split = split
    this.#index = new IndexWriter(indexMaxBytes)
    this.#what = what
    this.#entriesMax = entriesMax
  }

  async scan(): Promise<Scan> {
    let prelude: Prelude = {}
    for (;;) {
      const of = { what: `${this.#what}: header at ${this.#stream.at}` }
      const block = await this.#header(of)
      if (block === undefined) break
      const header = parseHeader(block, of)
      if (isExtension(header)) {
        prelude = await this.#extend(prelude, header, of)
      } else if (header.type === 'g') {
        if (!isEmpty(prelude))
          throw Failure.unsupported(`${of.what}: a global header between an entry and what extends it`)
        await this.#global(header, of)
      } else {
        await this.#member(header, prelude)
        prelude = {}
      }
      await this.#split.pass()
    }
    if (!isEmpty(prelude)) throw Failure.corrupt(`${this.#what}: it ends with what extends an entry, and no entry`)
    this.#split.segment()
    await this.#trailer()
    await this.#split.end()
    const [diffId, tarSize] = [this.#stream.digest(), this.#stream.at]
    return { diffId, tarSize, index: this.#index.finish(diffId, tarSize) }
  }

  /** The next header block; undefined at the end of the archive, which two blocks of zeros mark or just the end of the bytes. */
  async #header(of: { what: string }): Promise<Uint8Array | undefined> {
    const block = await this.#stream.take(BLOCK_BYTES)
    if (block.length === 0) return undefined
    if (block.length < BLOCK_BYTES) throw cutOff(of.what)
    this.#split.raw(block)
    if (!isZero(block)) return block
    const second = await this.#stream.take(BLOCK_BYTES)
    if (second.length === 0) return undefined
    if (second.length < BLOCK_BYTES) throw cutOff(of.what)
    this.#split.raw(second)
    if (!isZero(second)) throw Failure.corrupt(`${of.what}: a block of zeros, and then another header`)
    return undefined
  }

  /** A header that says something about the next one. */
  async #extend(prelude: Prelude, header: TarHeader, of: { what: string }): Promise<Prelude> {
    const bytes = await this.#extension(header, of)
    return extend(prelude, header, bytes, of)
  }

  async #global(header: TarHeader, of: { what: string }): Promise<void> {
    const records = parsePax(await this.#extension(header, of, false), of)
    const name = globalName(header, records, this.#what)
    this.#count(name, of.what)
    this.#split.segment()
    this.#split.file(header.name, 0)
    await this.#padding(header.size, of.what)
  }

  async #extension(header: TarHeader, of: { what: string }, padded = true): Promise<Uint8Array> {
    checkExtension(header, of)
    const bytes = (await this.#stream.take(header.size)).slice()
    if (bytes.length < header.size) throw cutOff(of.what)
    this.#split.raw(bytes)
    if (padded) await this.#padding(header.size, of.what)
    return bytes
  }

  async #member(header: TarHeader, prelude: Prelude): Promise<void> {
    const { name, entry } = memberOf(header, prelude, this.#what)
    const what = `${this.#what}: entry ${quote(name)}`
    if (entry.link !== undefined && !this.#paths.has(entry.link)) {
      throw Failure.unsupported(`${what}: a hard link to ${quote(entry.link)}, which does not come before it`)
    }
    this.#count(entry.path, what)
    this.#split.segment()
    if (entry.size === 0) {
      this.#index.add(entry, undefined, what)
      this.#split.file(name, 0)
      return
    }
    const { sum, ...contained } = await this.#contents(entry.size, what)
    this.#index.add(entry, contained, what)
    this.#split.file(name, entry.size, sum)
    await this.#padding(entry.size, what)
  }

  /** Reads a file. */
  async #contents(size: number, what: string): Promise<Contained & { sum: Uint8Array }> {
    const offset = this.#stream.at
    const crc = new Crc64()
    const pieces: Digest[] = []
    for (let left = size; left > 0; ) {
      const hash = createHash('sha256')
      for (let missing = Math.min(PIECE_BYTES, left); missing > 0; ) {
        const bytes = await this.#stream.some(missing)
        if (bytes.length === 0) throw cutOff(what)
        hash.update(bytes)
        crc.update(bytes)
        missing -= bytes.length
        left -= bytes.length
      }
      pieces.push(finish(hash))
    }
    return { offset, pieces, sum: crc.digest() }
  }

  /** What fills the last block of `size` bytes. */
  async #padding(size: number, what: string): Promise<void> {
    const length = (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES
    const bytes = await this.#stream.take(length)
    if (bytes.length < length) throw cutOff(what)
    this.#split.raw(bytes)
  }

  /**
   * What follows the archive's end is not looked at, as engines do not: tools fill up to what a tape wrote at once, and some of those
   * that write eStargz put its index there. It counts for the digest, and is kept to put the tar together again.
   */
  async #trailer(): Promise<void> {
    for (;;) {
      const bytes = await this.#stream.take(TRAILER_BYTES)
      if (bytes.length === 0) return
      this.#split.raw(bytes)
      this.#split.segment()
      await this.#split.pass()
    }
  }

  /** containers/storage refuses a path that comes twice: the tar could not be put together again. */
  #count(path: string, what: string): void {
    if (this.#paths.has(path)) throw Failure.unsupported(`${what}: its path comes twice`)
    if (this.#paths.size >= this.#entriesMax)
      throw Failure.limit(`${this.#what}: more than ${this.#entriesMax} entries`)
    this.#paths.add(path)
  }
}

function isEmpty(prelude: Prelude): boolean {
  return Object.keys(prelude).length === 0
}

function cutOff(what: string): Failure {
  return Failure.corrupt(`${what}: the tar is cut off`)
}
