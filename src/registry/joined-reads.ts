// Small reads of one blob that are wanted at the same time, and that nobody waits for yet, by few requests: a request costs whoever asks and
// whoever answers more than the bytes of a small chunk, and a round trip where only so many may be under way.
//
//   reads of one turn ── as many as go together ── one request for all ─┬─ each gets its own bytes as they arrive
//                                                                       └─ what did not come: asked for alone
//
// Of whom nothing came yet, nobody knows whether several may be asked for: where they are many, the first one's answer tells.
import { abortion } from '../errors.ts'
import type { Giver, Range, ReadOptions } from '../image/blob.ts'
import { untilAll } from '../limit.ts'
import type { Piece } from './byteranges.ts'

/** A request of its own is little beside more. */
const EACH_MAX_BYTES = 64 << 10
/** Of one request: some servers refuse a header of more than 4 KiB, and a range takes some 20 bytes of it. */
const RANGES_MAX = 64
/** So many are asked for alone rather than a round trip later. */
const FEW = 4
/** 84 ms at 100 Mbit/s: who begins to wait for the last of them waits no longer. */
const TOGETHER_MAX_BYTES = 1 << 20

/** One read that takes part in a request. */
export interface Part {
  readonly range: Range
  readonly options: ReadOptions
  readonly bytes: Uint8Array
  /** Bytes of it that have come, from its first on. */
  filled: number
  /** Whether it came, or is not wanted any more. */
  isSettled: boolean
}

interface Waiting extends Part {
  resolve(bytes: Uint8Array): void
  reject(error: unknown): void
  leave(): void
}

/**
 * Asks for some ranges by one request, in their order, and hands what comes to `took`, after `givenBy`; resolves when nothing more comes.
 * Throws whatever keeps it from it.
 */
export type AskTogether = (
  parts: readonly Part[],
  took: (piece: Piece) => Promise<void> | undefined,
  givenBy: (giver: Giver) => Promise<void>,
  signal: AbortSignal,
) => Promise<void>

export interface JoinedReadsParts {
  /** Whether it is known of whoever is asked how he takes several ranges. */
  isKnown(): Promise<boolean>
  together: AskTogether
  alone(range: Range, options: ReadOptions): Promise<Uint8Array>
}

export class JoinedReads {
  readonly #parts: JoinedReadsParts
  readonly #waiting: Record<'prefetch' | 'background', Waiting[]> = { prefetch: [], background: [] }
  #scheduled = false

  constructor(parts: JoinedReadsParts) {
    this.#parts = parts
  }

  /** Whether a range is one of those that go together, where nobody waits for it. */
  takes({ start, end }: Range): boolean {
    return end > start && end - start <= EACH_MAX_BYTES
  }

  /** As Blob.read, of a read that it takes. */
  read(range: Range, options: ReadOptions): Promise<Uint8Array> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
    const { signal, priority } = options
    if (signal?.aborted) return Promise.reject(abortion(signal))
    const abort = () => settle(() => reject(abortion(signal)))
    const settle = (tell: () => void) => {
      waiting.isSettled = true
      waiting.leave()
      tell()
    }
    const waiting: Waiting = {
      range,
      options,
      bytes: new Uint8Array(range.end - range.start),
      filled: 0,
      isSettled: false,
      resolve: (bytes) => settle(() => resolve(bytes)),
      reject: (error) => settle(() => reject(error)),
      leave: () => signal?.removeEventListener('abort', abort),
    }
    signal?.addEventListener('abort', abort, { once: true })
    this.#waiting[priority === 'background' ? 'background' : 'prefetch'].push(waiting)
    if (!this.#scheduled) {
      this.#scheduled = true
      setImmediate(() => this.#send())
    }
    return promise
  }

  #send(): void {
    this.#scheduled = false
    for (const waiting of Object.values(this.#waiting)) void this.#sendAll(unsettled(waiting.splice(0))) // never rejects
  }

  async #sendAll(all: readonly Waiting[]): Promise<void> {
    const tells = all.length > FEW && !(await this.#parts.isKnown().catch(() => true)) // who cannot be asked says so to each
    if (tells) await this.#askAlone(unsettled(all).slice(0, 1))
    await Promise.all(groups(unsettled(all)).map((group) => this.#ask(group)))
  }

  async #ask(group: readonly Waiting[]): Promise<void> {
    if (group.length > 1) await this.#askTogether(group)
    await this.#askAlone(unsettled(group))
  }

  async #askAlone(all: readonly Waiting[]): Promise<void> {
    await Promise.all(all.map((each) => this.#parts.alone(each.range, each.options).then(each.resolve, each.reject)))
  }

  /** What fails is left, and asked for alone: that tells what is wrong, and tries again. */
  async #askTogether(group: readonly Waiting[]): Promise<void> {
    const stop = new AbortController()
    const leaving = group.map((each) => {
      const left = () => group.every(({ isSettled }) => isSettled) && stop.abort()
      each.options.signal?.addEventListener('abort', left, { once: true })
      return () => each.options.signal?.removeEventListener('abort', left)
    })
    const took = (piece: Piece) => untilAll(group.map((each) => give(each, piece)))
    const givenBy = async (giver: Giver) => {
      await Promise.all(unsettled(group).map(({ options }) => options.onGiver?.(giver)))
    }
    await this.#parts.together(group, took, givenBy, stop.signal).catch(() => {})
    for (const leave of leaving) leave()
  }
}

function unsettled(all: readonly Waiting[]): Waiting[] {
  return all.filter((each) => !each.isSettled)
}

/** @returns what resolves when more may come of it */
function give(waiting: Waiting, { at, bytes }: Piece): Promise<void> | undefined {
  const { range, filled, options } = waiting
  const next = range.start + filled
  const end = Math.min(range.end, at + bytes.length)
  if (waiting.isSettled || at > next || end <= next) return undefined
  waiting.bytes.set(bytes.subarray(next - at, end - at), filled)
  waiting.filled += end - next
  const held = options.onPart?.(waiting.bytes.subarray(filled, waiting.filled), filled)
  if (waiting.filled === waiting.bytes.length) waiting.resolve(waiting.bytes)
  return held ?? undefined
}

/** In their order; those of one group have no byte in common, and ascend within it (RFC 9110 14.2). */
function groups(all: readonly Waiting[]): Waiting[][] {
  const result: Waiting[][] = []
  let bytes = 0
  for (const each of all) {
    const last = result.at(-1)
    const length = each.bytes.length
    const overlaps = last?.some(({ range }) => range.start < each.range.end && each.range.start < range.end)
    if (last === undefined || overlaps || last.length === RANGES_MAX || bytes + length > TOGETHER_MAX_BYTES) {
      result.push([each])
      bytes = length
    } else {
      last.push(each)
      bytes += length
    }
  }
  return result.map((group) => group.sort((a, b) => a.range.start - b.range.start))
}
