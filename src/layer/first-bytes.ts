// What an index says is wanted first is asked for before a tree is built of it, so that the link is not idle meanwhile; and what is known to be
// wanted first of the very image, before its index is here. It is stored bytes of one blob, in memory, until the filler asks for them,
// which does so in ascending ranges; chunks are decoded as they arrive, also then.
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

/** One read that was begun before anybody had a use for it. `range` is a part of the blob that no other one has. */
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
  /** Ascending; undefined: nothing was begun yet. */
  #begun: Begun[] | undefined

  /** @param signal ends what is under way */
  constructor(room: FirstBytesRoom, signal: AbortSignal) {
    this.#room = room
    this.#signal = signal
  }

  /** Begins to read ranges of a blob, which ascend, or as much of their beginning as there is room for. Never throws; once is enough. */
  begin(blob: Blob, ranges: readonly Range[]): void {
    if (this.#begun !== undefined) return
    const wanted = withinBytes(ranges, blob.size)
    const bytes = wanted.reduce((sum, { start, end }) => sum + end - start, 0)
    const leave = bytes === 0 ? undefined : this.#room.take(bytes)
    if (leave === undefined) return
    let open = wanted.length
    const begun = wanted.map((range): Begun => {
      const one: Begun = {
        blob,
        range,
        givers: [],
        bytes: new Uint8Array(),
        isOver: false,
        error: undefined,
        taken: range.start,
        readers: 0,
        waiting: new Set(),
        end: () => {
          if (!this.#begun?.includes(one)) return
          this.#begun = this.#begun.filter((each) => each !== one)
          giveBack(one.bytes)
          if (--open === 0) leave()
        },
      }
      return one
    })
    this.#begun = begun
    for (const each of begun) void this.#read(each) // never rejects
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
    // what somebody waits for comes faster on its own
    const isDemand = (options.priority ?? 'demand') === 'demand'
    const here = isDemand ? [] : (this.#begun ?? []).filter((each) => each.blob === blob && isIn(each, range))
    if (here.length === 0) return await blob.read(range, options)
    const bytes = new Uint8Array(range.end - range.start)
    let at = range.start
    const rest = async (end: number) => {
      const from = at
      const onPart = (part: Uint8Array, partAt: number) => {
        const place = from - range.start + partAt
        bytes.set(part, place)
        return options.onPart?.(bytes.subarray(place, place + part.length), place)
      }
      bytes.set(await blob.read({ start: from, end }, { ...options, onPart }), from - range.start)
      at = end
    }
    for (const begun of here) {
      if (at < begun.range.start) await rest(begun.range.start)
      const until = Math.min(range.end, begun.range.end)
      if (!(await this.#takeOf(begun, range, until, bytes, options))) return await blob.read(range, options)
      at = until
    }
    if (at < range.end) await rest(range.end)
    return bytes
  }

  /** Copies what arrives of one read, up to `until`. @returns false: not all of it came. @throws Failure aborted */
  async #takeOf(begun: Begun, range: Range, until: number, bytes: Uint8Array, options: ReadOptions): Promise<boolean> {
    const start = Math.max(range.start, begun.range.start)
    if (begun.taken > start) return false // somebody else has it
    begun.taken = until
    begun.readers++
    const into = bytes.subarray(start - range.start)
    const onPart: ReadOptions['onPart'] = (part, at) => options.onPart?.(part, start - range.start + at)
    return await this.#take(begun, { start, end: until }, into, { ...options, onPart }).finally(() => {
      begun.readers--
      // who reads it may still write its memory away
      if (begun.isOver && begun.readers === 0 && (begun.error !== undefined || begun.taken === begun.range.end))
        begun.end()
    })
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

/** Whether some of a range is what was begun, and nobody has taken it. */
function isIn({ range, taken }: Begun, { start, end }: Range): boolean {
  return start < range.end && range.start < end && taken <= Math.max(start, range.start)
}

/** As much of the ranges as is read ahead of one blob; nothing behind one that does not ascend, or is beyond the blob. */
function withinBytes(ranges: readonly Range[], size: number): Range[] {
  let left = EACH_MAX_BYTES
  let behind = 0
  const within: Range[] = []
  for (const { start, end } of ranges) {
    if (!(start >= behind && start < end && end <= size)) return within
    behind = Math.min(end, start + left)
    left -= behind - start
    if (behind > start) within.push({ start, end: behind })
  }
  return within
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
