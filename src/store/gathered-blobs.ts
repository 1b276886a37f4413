// What was read of blobs, in whatever order, in files of their own: who wants a blob whole fetches only what nobody has read yet. Nothing of it
// is verified before all of it is, by the blob's digest; so what goes wrong costs the file, and it is fetched as if there were none.
import fs, { type FileHandle } from 'node:fs/promises'
import type { Range } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'

/** What is gathered is known by what one origin says of it: what another one says is nobody else's. */
export interface GatheredName {
  readonly digest: Digest
  readonly size: number
  readonly origin: string
}

/** A blob's file, whose bytes are its, but for those that are missing. */
export interface Gathered {
  readonly file: FileHandle
  readonly path: string
  readonly missing: readonly Range[]
  /** Whoever took it has closed and moved or removed the file. */
  end(): void
}

export interface GatheredParts {
  /** A new file with a name of its own. @throws what the disk does */
  begin(): Promise<{ file: FileHandle; path: string }>
  /** Whether the cache takes so many more bytes without letting go of any. */
  hasRoom(bytes: number): boolean
  /** Whether it may be wanted whole later. @throws what the disk does */
  isWanted(digest: Digest): Promise<boolean>
}

/** A few images'; each has a descriptor. */
const FILES_MAX = 128
/** Of one: more is read here and there, and would be asked for by as many requests. */
const PIECES_MAX = 4096
/** Blobs that are remembered not to be gathered; one that is forgotten is begun once more, and given up again. */
const GIVEN_UP_MAX = 4096

interface Gathering {
  /** Undefined: it is not to be gathered. */
  readonly file: Promise<{ file: FileHandle; path: string } | undefined>
  readonly writing: Set<Promise<void>>
  /** In order, none touching another. */
  here: readonly Range[]
}

export class GatheredBlobs {
  readonly #parts: GatheredParts
  /** The one that something was added to last comes last. */
  readonly #all = new Map<string, Gathering>()
  /** Those that somebody has taken. */
  readonly #taken = new Set<string>()
  /** What is read of them is not kept until somebody wants one whole: half of it is worth nothing. The one given up first comes first. */
  readonly #givenUp = new Set<string>()

  constructor(parts: GatheredParts) {
    this.#parts = parts
  }

  /** Keeps bytes that were read of a blob, which stay as they are until it resolves. Never rejects: what cannot be kept is not. */
  async add(of: GatheredName, at: number, bytes: Uint8Array): Promise<void> {
    const key = keyOf(of)
    if (this.#taken.has(key) || this.#givenUp.has(key)) return
    // what else is in the cache is whole, or is read: half of a blob goes first
    if (!this.#parts.hasRoom(bytes.length)) return await this.close()
    const gathering = this.#all.get(key) ?? this.#begin(of)
    this.#all.delete(key)
    this.#all.set(key, gathering)
    const writing = this.#write(gathering, at, bytes).catch(() => this.#drop(key))
    gathering.writing.add(writing)
    await writing
    gathering.writing.delete(writing)
  }

  /** Bytes of a blob that are not here; all of them, where nothing was gathered. */
  missing(of: GatheredName): number {
    const here = this.#all.get(keyOf(of))?.here ?? []
    return here.reduce((left, { start, end }) => left - (end - start), of.size)
  }

  /** Gives away what is there of a blob; undefined: nothing. Whoever takes it closes the file. */
  async take(of: GatheredName): Promise<Gathered | undefined> {
    const key = keyOf(of)
    const gathering = this.#all.get(key)
    this.#givenUp.delete(key)
    if (gathering === undefined) return undefined
    this.#all.delete(key)
    this.#taken.add(key)
    const end = () => void this.#taken.delete(key)
    await Promise.all(gathering.writing)
    const found = await gathering.file
    if (found !== undefined && gathering.here.length > 0) {
      return { ...found, missing: gapsIn(gathering.here, of.size), end }
    }
    end()
    await remove(found)
    return undefined
  }

  /** Throws away all of it. */
  async close(): Promise<void> {
    await Promise.all([...this.#all.keys()].map((key) => this.#drop(key)))
  }

  #begin({ digest, size }: GatheredName): Gathering {
    const { begin, hasRoom, isWanted } = this.#parts
    const open = async () => {
      try {
        return hasRoom(size) && (await isWanted(digest)) ? await begin() : undefined
      } catch {
        return undefined // a disk that does not take it: then it is fetched whole by whoever wants it so
      }
    }
    const [oldest] = this.#all.keys()
    if (this.#all.size >= FILES_MAX && oldest !== undefined) void this.#drop(oldest) // never rejects
    return { file: open(), writing: new Set(), here: [] }
  }

  async #write(gathering: Gathering, at: number, bytes: Uint8Array): Promise<void> {
    const found = await gathering.file
    if (found === undefined) throw new Error('not wanted')
    if (gathering.here.length > PIECES_MAX) throw new Error('too much')
    for (let done = 0; done < bytes.length; ) {
      done += (await found.file.write(bytes, done, bytes.length - done, at + done)).bytesWritten
    }
    gathering.here = withPiece(gathering.here, { start: at, end: at + bytes.length })
  }

  async #drop(key: string): Promise<void> {
    const gathering = this.#all.get(key)
    if (gathering === undefined) return
    this.#all.delete(key)
    this.#givenUp.add(key)
    const [first] = this.#givenUp
    if (this.#givenUp.size > GIVEN_UP_MAX && first !== undefined) this.#givenUp.delete(first)
    await remove(await gathering.file)
  }
}

function keyOf({ digest, size, origin }: GatheredName): string {
  return `${origin} ${digest} ${size}`
}

async function remove(found: { file: FileHandle; path: string } | undefined): Promise<void> {
  await found?.file.close().catch(() => {}) // it is thrown away
  if (found !== undefined) await fs.rm(found.path, { force: true }).catch(() => {}) // as all that is temporary, at the next start
}

/** @param all in order, none touching another */
function withPiece(all: readonly Range[], piece: Range): Range[] {
  const before = all.filter(({ end }) => end < piece.start)
  const after = all.filter(({ start }) => start > piece.end)
  const touching = all.slice(before.length, all.length - after.length)
  const start = Math.min(piece.start, ...touching.map((each) => each.start))
  const end = Math.max(piece.end, ...touching.map((each) => each.end))
  return [...before, { start, end }, ...after]
}

/** What is between and around them, up to `size`. */
function gapsIn(all: readonly Range[], size: number): Range[] {
  const ends = [0, ...all.map(({ end }) => end)]
  const starts = [...all.map(({ start }) => start), size]
  return ends.flatMap((start, i) => {
    const end = starts[i] as number // one each
    return start < end ? [{ start, end }] : []
  })
}
