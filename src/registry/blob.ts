// A blob in a registry: exact ranges of it, and all of it.
import { Failure } from '../errors.ts'
import type { Range, ReadOptions } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { untilAll } from '../limit.ts'
import { contentEncoding } from './body.ts'
import { ByteRanges, boundaryOf } from './byteranges.ts'
import type { Answer } from './client.ts'
import { Filling } from './filling.ts'
import { type AskTogether, JoinedReads, type Part } from './joined-reads.ts'
import type { Given, Repository } from './repository.ts'
import { passing } from './retry.ts'
import type { StoredBlob, StreamOptions } from './source.ts'

/** One read's memory. No chunk and no index comes near it. */
const READ_MAX_BYTES = 256 << 20
/**
 * Where ranges of a blob are known to be ignored, it comes from its start: so much of it is thrown away to reach what is wanted. An
 * answer that comes whole unexpectedly is read to whatever lies in it.
 */
const SKIP_MAX_BYTES = 1 << 20

/** What an answer of several ranges may have: what lies between ranges that are near each other, too, and headers of each part. */
const TOGETHER_TIMES = 2
const PART_HEAD_BYTES = 1 << 10
/** Why some reads are made one by one; whoever asks hears of it, nobody else. */
const NOT_TOGETHER = Failure.limit('these ranges are asked for one by one')

/**
 * Does `ask` with the first repository that can, in their order (mirrors, then the origin; whoever answered last is first, or, where that is
 * doubted, last); `left`: those not asked yet, this one included.
 */
export type Ask = <T>(
  ask: (repository: Repository, left: number, all: number) => Promise<T>,
  doubted?: boolean,
) => Promise<T>

/** Is handed what comes; while what it returns is pending nothing more comes. */
type Take = (part: Uint8Array) => Promise<void> | undefined

/** Reads are checked to be exactly what was asked for; what they bring is not verified here. */
export class RegistryBlob implements StoredBlob {
  readonly digest: Digest
  readonly size: number
  readonly origin: string
  readonly #repository: string
  readonly #ask: Ask
  readonly #joined = new JoinedReads({
    isKnown: () => this.#ask(async ({ host }) => host.severalRanges.isKnown),
    together: (...asked) => this.#readTogether(...asked),
    alone: (range, options) => this.#readAlone(range, options),
  })

  /** @param repository as references name it, without the host that it is at, which is the origin */
  constructor(descriptor: Descriptor, origin: string, repository: string, ask: Ask) {
    this.origin = origin
    this.#repository = `${origin}/${repository}`
    this.digest = descriptor.digest
    this.size = descriptor.size
    this.#ask = ask
  }

  async read(range: Range, options: ReadOptions = {}): Promise<Uint8Array> {
    checkRange(range, this)
    const isAlone = (options.priority ?? 'demand') === 'demand' || options.doubted
    if (!isAlone && this.#joined.takes(range)) return await this.#joined.read(range, options)
    return await this.#readAlone(range, options)
  }

  async #readAlone(range: Range, options: ReadOptions): Promise<Uint8Array> {
    const bytes = new Uint8Array(range.end - range.start)
    if (bytes.length === 0) return bytes
    const filling = new Filling(bytes, options.onPart)
    const rest = () => ({ start: range.start + filling.filled, end: range.end })
    try {
      await this.#transfer(rest, (part) => filling.take(part), options, false)
    } finally {
      filling.tell() // nobody is told of anything when this has ended
    }
    await filling.holds()
    return bytes
  }

  /** Several ranges by one request, where whoever is asked is not known to answer it with something else. */
  async #readTogether(...[parts, took, givenBy, signal]: Parameters<AskTogether>): Promise<void> {
    let asked = false
    await this.#ask(async (repository, left, all) => {
      const { severalRanges } = repository.host
      if (asked || !severalRanges.mayCome) throw NOT_TOGETHER
      const wanted = {
        path: `blobs/${this.digest}`,
        lasting: true,
        what: `blob ${this.digest}`,
        headers: (): Record<string, string> => {
          if (asked) throw NOT_TOGETHER // an answer broke off: what is missing is asked for alone
          return { range: rangesOf(parts) }
        },
        endures: {
          hosts: all,
          last: left === 1,
          came: () => parts.reduce((sum, { filled }) => sum + filled, 0),
          hedged: false,
          probe: (bytes: number) => this.#probe(bytes),
        },
        priority: parts[0]?.options.priority ?? 'prefetch',
        signal,
      }
      await repository.fetch(wanted, async (answer) => {
        asked = true
        const boundary = answer.status === 206 ? boundaryOf(answer.header('content-type')) : undefined
        if (boundary === undefined) {
          severalRanges.cameApart()
          throw NOT_TOGETHER
        }
        await givenBy({ repository: this.#repository, anonymous: answer.anonymous })
        const pieces = new ByteRanges(boundary, this.size)
        // what lies between ranges may come with them
        let left = parts.reduce((sum, { bytes }) => sum + TOGETHER_TIMES * bytes.length + PART_HEAD_BYTES, 0)
        await answer.body((bytes) => {
          left -= bytes.length
          if (left < 0)
            throw Failure.corrupt(`blob ${this.digest}: ${answer.url.host} sends more than it was asked for`)
          return untilAll([...pieces.take(bytes)].map(took))
        })
      })
    })
  }

  async stream(take: (bytes: Uint8Array) => Promise<void>, options: StreamOptions = {}): Promise<void> {
    let taken = 0
    await this.#transfer(
      () => ({ start: taken, end: this.size }),
      async (part) => {
        await take(part)
        taken += part.length
      },
      options,
      true,
    )
  }

  /** Brings `rest()` to `take`; after a broken transfer what is then the rest. `whole`: once at a time of a host. */
  async #transfer(
    rest: () => Range,
    take: Take,
    { priority = 'demand', signal, onGiver, doubted }: ReadOptions,
    whole: boolean,
  ): Promise<void> {
    const { start } = rest()
    await this.#ask(async (repository, left, all) => {
      const first = rest()
      if (first.start === first.end) return
      if (first.start > SKIP_MAX_BYTES && repository.host.ignoredRanges.of(this.#nameIn(repository))) {
        throw rangeless(repository)
      }
      let began = 0
      const wanted = {
        path: `blobs/${this.digest}`,
        lasting: true,
        what: `blob ${this.digest}`,
        headers: (): Record<string, string> => {
          const { start, end } = rest()
          began = performance.now()
          // all of it is asked for without a range, because any server can answer that
          return start === 0 && end === this.size ? {} : { range: `bytes=${start}-${end - 1}` }
        },
        endures: {
          hosts: all,
          last: left === 1,
          came: () => rest().start - start,
          hedged: !whole && priority === 'demand',
          probe: (bytes: number) => this.#probe(bytes),
        },
        priority,
        signal,
      }
      const use = async (answer: Given, claim: () => void) => {
        const { ignoredRanges, severalRanges } = repository.host
        const range = rest()
        const name = this.#nameIn(repository)
        if (answer.status === 206) ignoredRanges.ended(name)
        else if (range.start > 0 || range.end < this.size) ignoredRanges.happened(name, began)
        if (range.start > SKIP_MAX_BYTES && ignoredRanges.of(name)) throw rangeless(repository)
        const taken = (part: Uint8Array) => {
          claim()
          return take(part)
        }
        severalRanges.came(answer.url.host === repository.server)
        await onGiver?.({ repository: this.#repository, anonymous: answer.anonymous })
        await this.#take(answer, range, taken)
      }
      const fetch = () => repository.fetch(wanted, use)
      if (whole) await repository.host.streams.take(this.digest, fetch, signal ?? new AbortController().signal)
      else await fetch()
    }, doubted)
  }

  #nameIn({ endpoint }: Repository): string {
    return `${endpoint.repository} ${this.digest}`
  }

  /** Its first bytes. */
  #probe(windowBytes: number): { headers: Record<string, string>; bytes: number } {
    const bytes = Math.min(windowBytes, this.size)
    return { headers: bytes === this.size ? {} : { range: `bytes=0-${bytes - 1}` }, bytes }
  }

  async #take(answer: Answer, range: Range, take: Take): Promise<void> {
    const whole = answer.status === 200
    if (whole) checkWhole(answer, this)
    else checkPartial(answer, range, this)
    checkEncoding(answer, this)
    let skip = whole ? range.start : 0
    let left = range.end - range.start
    let last: Promise<void> | undefined
    const hasMore = whole && range.end < this.size
    await answer.body((bytes) => {
      const part = skip === 0 ? bytes : bytes.subarray(Math.min(skip, bytes.length))
      skip -= bytes.length - part.length
      if (part.length > left && !hasMore) {
        throw Failure.corrupt(`blob ${this.digest}: ${answer.url.host} sends more bytes than it was asked for`)
      }
      const wanted = part.length > left ? part.subarray(0, left) : part
      left -= wanted.length
      const taking = wanted.length > 0 ? take(wanted) : undefined
      if (left > 0 || !hasMore) return taking
      // the rest of the blob is cut off with the stream
      last = taking
      return false
    })
    await last
    if (left > 0) {
      throw passing(
        Failure.unavailable(`blob ${this.digest}: ${answer.url.host} ends its answer ${left} bytes too early`),
      )
    }
  }
}

/** As a Range header has them. */
function rangesOf(parts: readonly Part[]): string {
  const wanted = parts.filter(({ isSettled }) => !isSettled)
  return `bytes=${wanted.map(({ range }) => `${range.start}-${range.end - 1}`).join(',')}`
}

function rangeless(repository: Repository): Failure {
  const { host } = repository.endpoint
  return Failure.unsupported(`${host} does not support ranges`, {
    why: 'it answers a ranged request with the whole blob, so its layers cannot be read lazily',
    fix: 'Pull the image with the engine, or put a registry before it that honours Range.',
  })
}

/** @throws Failure corrupt, limit: ranges come from indexes that others wrote */
export function checkRange(range: Range, blob: { digest: Digest; size: number }): void {
  const { start, end } = range
  const sound = Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start <= end
  if (!sound || end > blob.size) {
    throw Failure.corrupt(`blob ${blob.digest}: bytes ${start} to ${end} do not lie within its ${blob.size}`)
  }
  if (end - start > READ_MAX_BYTES) throw Failure.limit(`blob ${blob.digest}: a read of ${end - start} bytes`)
}

function contentLength(answer: Answer): number | undefined {
  const header = answer.header('content-length')
  return header === undefined ? undefined : Number(header)
}

function checkWhole(answer: Answer, blob: { digest: Digest; size: number }): void {
  const length = contentLength(answer)
  if (length !== undefined && length !== blob.size) {
    throw Failure.corrupt(`blob ${blob.digest}: ${answer.url.host} has ${length} bytes, the manifest says ${blob.size}`)
  }
}

/** The answer must say of itself that it is exactly what was asked for (RFC 9110 14.4). */
function checkPartial(answer: Answer, range: Range, blob: { digest: Digest; size: number }): void {
  const part = `bytes ${range.start}-${range.end - 1}`
  const want = `${part}/${blob.size}`
  const got = answer.header('content-range')
  const said = got?.trim().toLowerCase()
  // who does not know how long all of it is says so
  if (said !== want && said !== `${part}/*`) {
    const what = `blob ${blob.digest}: ${answer.url.host} answers another range`
    throw Failure.corrupt(what, { why: `want ${want}, got ${JSON.stringify(got?.slice(0, 100) ?? 'none')}` })
  }
  const length = contentLength(answer)
  if (length !== undefined && length !== range.end - range.start) {
    throw Failure.corrupt(`blob ${blob.digest}: ${answer.url.host} announces ${length} bytes for ${want}`)
  }
}

/** Bytes that all of a blob has, by the answer to a request for its first one. @throws Failure unsupported: it does not say */
export async function sizeIn(answer: Answer, digest: Digest): Promise<number> {
  const [, total] = /\/(\d+)$/.exec(answer.header('content-range')?.trim() ?? '') ?? []
  const size = answer.status === 206 ? Number(total) : contentLength(answer)
  if (size !== undefined && Number.isSafeInteger(size)) return size
  throw Failure.unsupported(`blob ${digest}: ${answer.url.host} does not say how many bytes it has`)
}

/**
 * None was asked for, and storage labels bytes that it keeps as they are (`aws-chunked`, `x-gzip`): such a label is believed only where
 * no length says that they are the blob's own.
 */
function checkEncoding(answer: Answer, blob: { digest: Digest; size: number }): void {
  if (contentLength(answer) !== undefined || answer.header('content-range')?.trim().endsWith(`/${blob.size}`)) return
  const encoding = contentEncoding(answer)
  if (encoding === undefined) return
  throw Failure.corrupt(`blob ${blob.digest}: ${answer.url.host} answers with content encoding ${encoding}`, {
    why: 'none was asked for, and no length says that the bytes are those of the blob',
  })
}
