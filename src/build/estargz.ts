// Writes an eStargz layer (stargz-snapshotter docs/estargz.md): entries -> a tar.gz in which every chunk of a file can be read alone.
//
//   wanted first │ .prefetch.landmark │ the others │ stargz.index.json and the archive's end │ footer
//   each: member of headers │ member a chunk │ …        (min chunk size: members of several files, headers between them)
import { createHash } from 'node:crypto'
import { Failure } from '../errors.ts'
import { makeFooter } from '../format/estargz/footer.ts'
import { TOC_NAME } from '../format/estargz/toc-member.ts'
import { LANDMARK, NO_LANDMARK } from '../format/toc/landmarks.ts'
import { type Digest, digestOf, finish } from '../image/digest.ts'
import { CHUNK_MAX_BYTES } from '../tree/chunk.ts'
import { chunksOf, sizeOf } from './content.ts'
import { headerOf } from './header.ts'
import { MemberWriter, type Written } from './member-writer.ts'
import { order } from './order.ts'
import type { SourceEntry } from './source-entry.ts'
import { encodeHeader, endOfArchive, padding } from './tar.ts'
import { type TocEntry, tocEntry } from './toc-entry.ts'

/** What other tools use: small enough to be read alone, large enough to compress well. */
const CHUNK_BYTES = 4 << 20
/** As gzip's own; higher ones cost more time than they save transfer. */
const LEVEL = 6
/** Headers alone end a member at this length, so that memory stays bounded. */
const HEADERS_BYTES = 1 << 20
/** What landmark files hold, as the specification says. */
const LANDMARK_CONTENT = new Uint8Array([0xf])

export interface EstargzOptions {
  /** Bytes of a file in one chunk. Default: 4 MiB. */
  chunkSize?: number
  /** Paths whose contents a start needs, in that order. Default: none are known. */
  prioritized?: readonly string[]
  /** Of gzip, 0 to 9. Default: 6. */
  level?: number
  /** Small files share a member until it has so many bytes. Default: 0, a member a chunk. */
  minChunkSize?: number
}

export interface EstargzWritten extends Written {
  /** SHA-256 of the table of contents. */
  tocDigest: Digest
}

/**
 * Writes the blob to the file `path`. Entries of equal path stay in their order, of which the last wins.
 * @throws Failure usage (bad options, reserved names), missing (a prioritized path), system
 */
export async function writeEstargz(
  entries: Iterable<SourceEntry> | AsyncIterable<SourceEntry>,
  path: string,
  { chunkSize = CHUNK_BYTES, prioritized = [], level = LEVEL, minChunkSize = 0 }: EstargzOptions = {},
): Promise<EstargzWritten> {
  if (!(chunkSize > 0 && minChunkSize >= 0 && chunkSize + minChunkSize <= CHUNK_MAX_BYTES / 2)) {
    throw Failure.usage(`chunks of ${chunkSize} bytes, members of at least ${minChunkSize}`, {
      why: `a reader accepts ${CHUNK_MAX_BYTES} bytes at most in one member`,
    })
  }
  const { first, rest } = await order(entries, prioritized)
  for (const each of [...first, ...rest]) {
    if (RESERVED.includes(each.path)) throw Failure.usage(`${each.path} is a name that eStargz itself uses`)
  }
  const landmark: SourceEntry = {
    path: first.length > 0 ? LANDMARK : NO_LANDMARK,
    type: 'file',
    mode: 0,
    content: LANDMARK_CONTENT,
  }
  let tocDigest: Digest | undefined
  const written = await MemberWriter.make(path, level, async (out) => {
    const layer = new LayerWriter(out, chunkSize, minChunkSize)
    for (const each of first) await layer.add(each)
    await layer.flush()
    for (const each of [landmark, ...rest]) await layer.add(each)
    await layer.flush()
    const tocOffset = await out.position()
    const json = new TextEncoder().encode(JSON.stringify({ version: 1, entries: layer.toc }))
    tocDigest = digestOf(json)
    const header = encodeHeader({ path: TOC_NAME, type: 'file', mode: 0, uid: 0, gid: 0, mtime: 0n, size: json.length })
    await out.member(Buffer.concat([header, json, padding(json.length), endOfArchive()]))
    await out.trailer(makeFooter(tocOffset))
  })
  if (tocDigest === undefined) throw new Error('unreachable: the callback has run')
  return { ...written, tocDigest }
}

const RESERVED: readonly string[] = [LANDMARK, NO_LANDMARK, TOC_NAME]

/** The open member, and the table of contents so far. Offsets in the table are right once all members are written. */
class LayerWriter {
  readonly toc: TocEntry[] = []
  readonly #out: MemberWriter
  readonly #chunkSize: number
  readonly #minChunkSize: number
  #parts: Uint8Array[] = []
  #length = 0
  /** The chunks in the open member, which wait for its offset. */
  #chunks: TocEntry[] = []

  constructor(out: MemberWriter, chunkSize: number, minChunkSize: number) {
    this.#out = out
    this.#chunkSize = chunkSize
    this.#minChunkSize = minChunkSize
  }

  async add(source: SourceEntry): Promise<void> {
    // headers that no chunk follows for long
    if (this.#length >= (this.#chunks.length > 0 ? this.#minChunkSize : HEADERS_BYTES)) await this.flush()
    const size = sizeOf(source)
    const header = headerOf(source, size)
    this.#push(encodeHeader(header))
    const entry = tocEntry(header)
    this.toc.push(entry)
    if (header.type !== 'file') return
    const hash = createHash('sha256')
    let at = 0
    for await (const chunk of chunksOf(source, this.#chunkSize)) {
      hash.update(chunk)
      const of = at === 0 ? entry : { name: entry.name, type: 'chunk', chunkOffset: at }
      if (at > 0) this.toc.push(of)
      of.chunkDigest = digestOf(chunk)
      if (chunk.length < size - at) of.chunkSize = chunk.length
      at += chunk.length
      await this.#addChunk(chunk, of)
    }
    entry.digest = finish(hash)
    this.#push(padding(size))
  }

  async #addChunk(chunk: Uint8Array, of: TocEntry): Promise<void> {
    // headers alone do not make a member that chunks are read from
    if (this.#chunks.length === 0) await this.flush()
    if (this.#length > 0) of.innerOffset = this.#length
    this.#chunks.push(of)
    this.#push(chunk)
    if (this.#length >= this.#minChunkSize) await this.flush()
  }

  #push(bytes: Uint8Array): void {
    if (bytes.length === 0) return
    this.#parts.push(bytes)
    this.#length += bytes.length
  }

  /** Ends the open member. */
  async flush(): Promise<void> {
    if (this.#length === 0) return
    const tar = Buffer.concat(this.#parts)
    const chunks = this.#chunks
    this.#parts = []
    this.#length = 0
    this.#chunks = []
    await this.#out.member(tar, (offset) => {
      for (const each of chunks) each.offset = offset
    })
  }
}
