// What an index says is wanted first is asked for before a tree is built of it, so that the link is not idle meanwhile. It is stored bytes
// of one blob, in memory, until the filler asks for them, which does so in ascending ranges; chunks are decoded as they arrive, also then.
//
//   index ─┬─ first bytes ════ arriving ════╗
//          └─ tree built ─ device open ─ filler ─ read ─▶ taken from what arrives, the rest from the blob
import { Failure } from '../errors.ts'
import type { Budget } from '../fetch/budget.ts'
import { giveBack } from '../format/memory.ts'
import type { Blob, Giver, Range, ReadOptions } from '../image/blob.ts'

/** Of one blob: what 100 Mbit/s bring in the time that it takes to build a large tree. It is one request of prefetch, usually. */
const EACH_MAX_BYTES = 8 << 20
/** Blobs whose first bytes are in memory at a time; of more the link is busy already. */
const BLOBS_MAX = 4
/** What nobody has taken so long after it came, nobody wants: its tree could not be built, or is here already. */
const UNTAKEN_MS = 10_000

/** Bounds the memory of all first bytes of a process. */
export class FirstBytesRoom {
  readonly #memory: Pick<Budget, 'tryTake'>
  #users = 0

  constructor(memory: Pick<Budget, 'tryTake'>) {
    this.#memory = memory
  }

  /** Undefined: there is none. @returns what gives it back, once however often it is called */
  take(bytes: number): (() => void) | undefined {
    if (this.#users >= BLOBS_MAX) return undefined
    // no more than the background: whoever asks for them next finds room
    const giveBack = this.#memory.tryTake(bytes, 'background')
    if (giveBack === undefined) return undefined
    this.#users++
    let taken = true
    return () => {
      if (taken) this.#users--
      taken = false
      giveBack()
    }
  }
}

/** One read that was begun before anybody had a use for it. */
interface Begun {
  readonly blob: Blob
  readonly range: Range
  /** Who gives it: each is there before what it gave. */
  readonly givers: Giver[]
  /** As much of it as came: views of the same memory, each a longer one. */
  bytes: Uint8Array
  isOver: boolean
  error: unknown
  /** Up to here, from the blob's start, it was handed on. Nobody is given the same bytes twice: they may be what was wrong. */
  taken: number
  /** Those that are being given some. */
  readers: number
  /** Called when more of it came, or no more will. */
  readonly waiting: Set<() => void>
  readonly end: () => void
}

export class FirstBytes {
  readonly #room: FirstBytesRoom
  readonly #signal: AbortSignal
  #begun: Begun | undefined

  /** @param signal ends what is under way */
  constructor(room: FirstBytesRoom, signal: AbortSignal) {
    this.#room = room
    this.#signal = signal
  }

  /** Begins to read a range of a blob, or as much of its beginning as there is room for. Never throws; once is enough. */
  begin(blob: Blob, { start, end }: Range): void {
    if (this.#begun !== undefined || !(start >= 0 && start < end && end <= blob.size)) return
    const range = { start, end: Math.min(end, start + EACH_MAX_BYTES) }
    const leave = this.#room.take(range.end - range.start)
    if (leave === undefined) return
    const begun: Begun = {
      blob,
      range,
      givers: [],
      bytes: new Uint8Array(),
      isOver: false,
      error: undefined,
      taken: start,
      readers: 0,
      waiting: new Set(),
      end: () => {
        leave()
        giveBack(begun.bytes)
        if (this.#begun === begun) this.#begun = undefined
      },
    }
    this.#begun = begun
    void this.#read(begun) // never rejects
  }

  /** The blob, of which what was begun is read from here. */
  over(blob: Blob): Blob {
    return { digest: blob.digest, size: blob.size, read: (range, options) => this.#readOver(blob, range, options) }
  }

  async #read(begun: Begun): Promise<void> {
    const { blob, range, waiting } = begun
    const came = (bytes: Uint8Array) => {
      begun.bytes = bytes
      for (const each of waiting) each()
    }
    try {
      const onPart = ({ buffer, byteOffset, length }: Uint8Array, at: number) =>
        came(new Uint8Array(buffer, byteOffset - at, at + length))
      const onGiver = async (giver: Giver) => void begun.givers.push(giver)
      came(await blob.read(range, { priority: 'prefetch', signal: this.#signal, onPart, onGiver }))
    } catch (error) {
      begun.error = error
    }
    begun.isOver = true
    for (const each of waiting) each()
    if (begun.readers === 0 && (begun.error !== undefined || begun.taken === range.end)) begun.end()
    else setTimeout(begun.end, UNTAKEN_MS).unref()
  }

  async #readOver(blob: Blob, range: Range, options: ReadOptions = {}): Promise<Uint8Array> {
    const begun = this.#begun
    const isHere = begun?.blob === blob && begun.taken <= range.start && range.start < begun.range.end
    // what somebody waits for comes faster on its own
    if (begun === undefined || !isHere || (options.priority ?? 'demand') === 'demand')
      return await blob.read(range, options)
    const until = Math.min(range.end, begun.range.end)
    begun.taken = until
    begun.readers++
    const bytes = new Uint8Array(range.end - range.start)
    const came = await this.#take(begun, { start: range.start, end: until }, bytes, options).finally(() => {
      begun.readers--
      // who reads it may still write its memory away
      if (begun.isOver && begun.readers === 0 && (begun.error !== undefined || begun.taken === begun.range.end))
        begun.end()
    })
    if (!came) return await blob.read(range, options)
    if (until === range.end) return bytes
    const rest = (part: Uint8Array, at: number) => {
      const place = until - range.start + at
      bytes.set(part, place)
      return options.onPart?.(bytes.subarray(place, place + part.length), place)
    }
    const read = await blob.read({ start: until, end: range.end }, { ...options, onPart: rest })
    bytes.set(read, until - range.start)
    return bytes
  }

  /** Copies what arrives of `range`. @returns false: not all of it came. @throws Failure aborted */
  async #take(
    begun: Begun,
    range: Range,
    into: Uint8Array,
    { signal, onPart, onGiver }: ReadOptions,
  ): Promise<boolean> {
    const { givers, waiting } = begun
    let told = 0
    for (let at = range.start; ; ) {
      for (; told < givers.length; told++) await onGiver?.(givers[told] as Giver) // told is below the length
      const came = Math.min(begun.range.start + begun.bytes.length, range.end)
      if (came > at) {
        const place = at - range.start
        into.set(begun.bytes.subarray(at - begun.range.start, came - begun.range.start), place)
        void onPart?.(into.subarray(place, came - range.start), place) // it has come: nothing is held back by waiting
        at = came
      }
      if (at === range.end || begun.isOver) return at === range.end
      await new Promise<void>((resolve) => {
        const more = () => {
          waiting.delete(more)
          signal?.removeEventListener('abort', more)
          resolve()
        }
        waiting.add(more)
        signal?.addEventListener('abort', more, { once: true })
      })
      if (signal?.aborted) throw Failure.aborted(`blob ${begun.blob.digest} is not wanted any more`)
    }
  }
}

/** What is read of a blob so that the way to it is there, and how long it is kept where nothing uses it (registry/connections.ts). */
const WARMING = { start: 0, end: 1 }
const WARM_MS = 4 * 60_000
/** Origins that are remembered. */
const WARM_MAX = 64

/** The background's ways to registries, made while indexes come: a connection takes some round trips, and who starts reads soon. */
export class WarmWays {
  readonly #warmAt = new Map<string, number>()

  /** To where a blob of an origin is. Whoever reads over it hears of what is wrong with it. */
  warm(blob: Blob, origin: string, signal: AbortSignal): void {
    const now = performance.now()
    if (now - (this.#warmAt.get(origin) ?? Number.NEGATIVE_INFINITY) < WARM_MS) return
    if (this.#warmAt.size >= WARM_MAX) this.#warmAt.clear()
    this.#warmAt.set(origin, now)
    blob.read(WARMING, { priority: 'background', signal }).catch(() => {}) // as above
  }
}
