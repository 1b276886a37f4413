// The way to one origin, as the background uses it: how much of its bytes may be asked for and not here yet, so that whoever really
// waits for something waits for little of it, and the link is full all the same.
//
//   limit = bandwidth * round trip, both measured from whatever is read of the origin, but 256 KiB at least
//
// Each read counts for what its stream's window lets come (BACKGROUND_WINDOW_BYTES), however long its range is; so more of them are
// under way where the way is long and wide, and one follows the other without a pause where it is not.
import { BACKGROUND_WINDOW_BYTES, type Priority } from '../image/blob.ts'
import { Throttle } from './throttle.ts'

/**
 * HTTP/2 asks for more when half of a window was taken, so of each read half a window to a whole one comes in a round trip, mostly three
 * quarters or more: with less than this, fewer reads would bring less, and less would allow for fewer. And where it is the limit that is
 * measured, and not the link, it has to grow. What is above 1 stands in the queue of a link that is full, before whoever waits.
 */
const GAIN = 1.4
/**
 * As long as more comes whenever more is asked for, it is the limit that is measured, and it may grow faster: a way of 150 ms is full after
 * three round trips, not after ten.
 */
const SEEKING_GAIN = 3
/** More is a quarter more than ever; the way is full when so many spans in which the limit held reads back brought no more. */
const MORE = 5 / 4
const FULL_SPANS = 6
/** As many streams as a connection has for the background, and half a second of 100 Mbit/s. */
const LIMIT_MAX_BYTES = 8 << 20
/** What comes in less is a clock's grain, or a burst; and so is what comes in less than a round trip, if that is not very long. */
const SPAN_MS = 100
const SPAN_MAX_MS = 500
/** The best rate counts, and fades by that in each span: what else uses the link hides it for a while. */
const FADES = 0.97
/** In each span the limit grows by that at most: the first answer of a connection took several round trips, and a second one tells. */
const GROWS = 3
/**
 * What comes sooner was here: the first bytes of a layer are asked for with its index (layer/first-bytes.ts), and tell of no round trip. A
 * prefetch tells of none at all. Where answers are really so quick, one window is enough for any link.
 */
const ANSWER_MIN_MS = 1
/**
 * So long an answer counts: ways change, but while the background fills one, every answer stands behind what it asked for, and would make the
 * way seem longer, which would have it ask for more.
 */
const ANSWER_COUNTS_MS = 10_000
/**
 * A miss costs little on a way that is shorter, and a program that starts needs the processor more than what it has not read yet: there the
 * background waits until nobody has read for a while.
 */
export const SHORT_MS = 5
const QUIET_MS = 1_000
/** Who waits for the first answer has it before the background makes a connection of its own, which takes as long to work out. */
const FIRST_MS = 50
/**
 * After so much prefetch a program has what its image says is wanted first, and is about to start with it: for a moment it needs the processor
 * more, and what it still asks for is to find the link free.
 */
const STARTS_MIN_BYTES = 1 << 20
const STARTS_MS = 250
/** One read takes so long at most, of which a window comes in each round trip: the last of them is not to come alone for long. */
const READ_MAX_MS = 500
/** Or so many windows, on a way of which nothing is known. */
const UNKNOWN_WINDOWS = 4
/** Nothing that was measured before a pause counts after it. */
const FORGET_MS = 60_000

/** One read. */
export interface Transfer {
  /** Its first bytes up to `to` are here. */
  came(to: number): void
  /**
   * Resolves when more of it may come, or somebody begins to wait for it; undefined: now. In the background those that began later wait
   * as long as more is on the way than may be.
   * @param hurry is given what to call in the latter case
   */
  turn(hurry: (call: () => void) => void): Promise<void> | undefined
  end(): void
}

export class Wire {
  readonly #standsAside: boolean
  readonly #now: () => number
  readonly #transfers = new Set<Transfer>()
  /** Of those in the background, what is asked for and not here. */
  readonly #left = new Map<Transfer, number>()
  /** Reads that may begin and have not. */
  readonly #places = new Set<object>()
  readonly #waiting = new Set<() => void>()
  /** Transfers that wait for their turn. */
  readonly #paused = new Set<() => void>()
  /** What counts, each longer than the one before it. */
  #answers: readonly { readonly at: number; readonly ms: number }[] = []
  /** Whether an answer came at once. */
  #isQuick = false
  /** Reads that have begun and not ended. */
  readonly #underWay: Record<Priority, number> = { demand: 0, prefetch: 0, background: 0 }
  /** When the last one ended that somebody waited for, or would have soon. */
  #othersEndedAt = Number.NEGATIVE_INFINITY
  #bytesPerMs = 0
  /** `heldBack`: the limit held a read back in it. */
  #span = { at: 0, bytes: 0, heldBack: false }
  #grown = BACKGROUND_WINDOW_BYTES
  #gain = GAIN
  #mostBytesPerMs = 0
  /** Spans in a row that brought no more though more was asked for. */
  #full = 0
  #quietAt = 0
  /** Bytes of prefetch that came since there was none under way; and when a burst of it ended. */
  #burst = 0
  #burstEndedAt = Number.NEGATIVE_INFINITY
  /** When the first answer came that somebody waited for. */
  #firstAt = Number.NEGATIVE_INFINITY

  /**
   * @param standsAside prefetch passes it, and where the way is short it waits for others to be quiet
   * @param now milliseconds
   */
  constructor(standsAside = true, now: () => number = () => performance.now()) {
    this.#standsAside = standsAside
    this.#now = now
  }

  /** Whether nothing is read, or about to be. */
  get isIdle(): boolean {
    return this.#transfers.size + this.#places.size + this.#waiting.size === 0
  }

  /** Bytes that may be on their way for the background. */
  get limit(): number {
    const carried = Number.isFinite(this.roundTripMs) ? this.#gain * this.#bytesPerMs * this.roundTripMs : 0
    return Math.max(BACKGROUND_WINDOW_BYTES, Math.min(this.#grown, carried))
  }

  /** Bytes of one read in the background that the way brings in good time. */
  get readMaxBytes(): number {
    if (this.#answers.length === 0)
      return this.#isQuick ? Number.POSITIVE_INFINITY : BACKGROUND_WINDOW_BYTES * UNKNOWN_WINDOWS
    return BACKGROUND_WINDOW_BYTES * Math.max(1, READ_MAX_MS / this.roundTripMs)
  }

  /** Bytes that are, or are about to be. */
  get unread(): number {
    let sum = 0
    for (const left of this.#left.values()) sum += Math.min(left, BACKGROUND_WINDOW_BYTES)
    return sum + this.#places.size * BACKGROUND_WINDOW_BYTES
  }

  /**
   * Resolves when one more read may begin in the background; `leave` must be called when it has ended.
   * @throws the signal's reason
   */
  async place(signal: AbortSignal): Promise<{ leave(): void }> {
    for (;;) {
      const quietInMs = this.#quietInMs
      const isFull = this.unread >= this.limit
      this.#span.heldBack ||= isFull
      if (isFull || this.#isPaused) await this.#changed(signal)
      else if (quietInMs > 0) await this.#changed(signal, quietInMs)
      else break
    }
    signal.throwIfAborted()
    const place = {}
    this.#places.add(place)
    return { leave: () => void (this.#places.delete(place) && this.#tell()) }
  }

  /** Prefetch asks for as much at once as fills the link, also while nothing of it comes. The first answer is to come before all else. */
  get #isPaused(): boolean {
    const { demand, prefetch } = this.#underWay
    return this.#standsAside && (prefetch > 0 || (demand > 0 && !this.#isKnown))
  }

  /** Whether anything was answered. */
  get #isKnown(): boolean {
    return this.#isQuick || this.#answers.length > 0
  }

  /** A read begins; in the background it has a place. */
  begin(bytes: number, priority: Priority): Transfer {
    const begun = this.#now()
    const isBackground = priority === 'background'
    const tells = priority !== 'prefetch'
    if (this.#transfers.size === 0) this.#wake(begun)
    this.#underWay[priority]++
    let here = 0
    const transfer = {
      came: (to: number) => {
        if (here === 0 && priority === 'demand' && !this.#isKnown) {
          this.#firstAt = this.#now()
          this.#tell()
        }
        if (here === 0 && tells) this.#answered(this.#now() - begun)
        const more = to - here
        here = to
        if (more > 0 && tells) this.#measure(more) // else another source has begun anew
        if (priority === 'prefetch') this.#burst += more
        if (isBackground) this.#left.set(transfer, bytes - to)
        if (isBackground && bytes - to < BACKGROUND_WINDOW_BYTES) this.#tell()
      },
      turn: (hurry: (call: () => void) => void) => {
        if (!this.#isBeyond(transfer)) return undefined
        return new Promise<void>((resolve) => {
          const go = () => {
            this.#paused.delete(look)
            resolve()
          }
          const look = () => {
            if (!this.#isBeyond(transfer)) go()
          }
          this.#paused.add(look)
          hurry(go)
        })
      },
      end: () => {
        if (this.#transfers.delete(transfer)) this.#underWay[priority]--
        if (!isBackground) this.#othersEndedAt = this.#now()
        if (priority === 'prefetch' && this.#underWay.prefetch === 0) {
          if (this.#burst >= STARTS_MIN_BYTES) this.#burstEndedAt = this.#now()
          this.#burst = 0
        }
        this.#left.delete(transfer)
        if (this.#transfers.size === 0) this.#quietAt = this.#now()
        this.#tell()
      },
    }
    this.#transfers.add(transfer)
    if (isBackground) {
      for (const place of [...this.#places].slice(0, 1)) this.#places.delete(place)
      this.#left.set(transfer, bytes)
    }
    return transfer
  }

  /** Whether those in the background that began before it have all that may be on the way. */
  #isBeyond(transfer: Transfer): boolean {
    let sum = 0
    for (const [each, left] of this.#left) {
      if (each === transfer) return sum >= this.limit
      sum += Math.min(left, BACKGROUND_WINDOW_BYTES)
    }
    return false
  }

  /** After that the background may go on, unless somebody reads meanwhile; 0: it may now. */
  get #quietInMs(): number {
    if (!this.#standsAside) return 0
    const isShort = this.roundTripMs < SHORT_MS || (this.#isQuick && this.#answers.length === 0)
    if (!isShort) return Math.max(this.#firstAt + FIRST_MS, this.#burstEndedAt + STARTS_MS) - this.#now()
    const { demand, prefetch } = this.#underWay
    return demand + prefetch > 0 ? QUIET_MS : this.#othersEndedAt + QUIET_MS - this.#now()
  }

  #answered(ms: number): void {
    if (ms < ANSWER_MIN_MS) this.#isQuick = true
    else {
      const at = this.#now()
      const counts = (each: { at: number; ms: number }) => each.ms < ms && at - each.at < ANSWER_COUNTS_MS
      this.#answers = [...this.#answers.filter(counts), { at, ms }]
    }
  }

  /** The shortest is the way itself, longer ones stood in queues. Infinity: it is not known. */
  get roundTripMs(): number {
    return this.#answers[0]?.ms ?? Number.POSITIVE_INFINITY
  }

  #wake(now: number): void {
    this.#span = { at: now, bytes: 0, heldBack: false }
    if (now - this.#quietAt < FORGET_MS) return
    this.#answers = []
    this.#isQuick = false
    this.#bytesPerMs = 0
    this.#grown = BACKGROUND_WINDOW_BYTES
    this.#gain = GAIN
    this.#mostBytesPerMs = 0
    this.#full = 0
  }

  #measure(bytes: number): void {
    const now = this.#now()
    this.#span.bytes += bytes
    const ms = now - this.#span.at
    const roundTripMs = this.roundTripMs
    if (ms < Math.max(SPAN_MS, Number.isFinite(roundTripMs) ? Math.min(roundTripMs, SPAN_MAX_MS) : 0)) return
    this.#grown = Math.min(this.limit * GROWS, LIMIT_MAX_BYTES)
    this.#seek(this.#span.bytes / ms, this.#span.heldBack)
    this.#bytesPerMs = Math.max(this.#span.bytes / ms, this.#bytesPerMs * FADES)
    this.#span = { at: now, bytes: 0, heldBack: false }
    this.#tell()
  }

  #seek(bytesPerMs: number, heldBack: boolean): void {
    if (bytesPerMs > this.#mostBytesPerMs * MORE) this.#full = 0
    else if (heldBack) this.#full++
    this.#mostBytesPerMs = Math.max(this.#mostBytesPerMs, bytesPerMs)
    this.#gain = heldBack && this.#full < FULL_SPANS ? SEEKING_GAIN : GAIN
  }

  /** @param ms at the latest; undefined: whenever that is */
  #changed(signal: AbortSignal, ms?: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = () => {
        clearTimeout(timer)
        this.#waiting.delete(go)
        signal.removeEventListener('abort', abort)
      }
      const abort = () => {
        end()
        reject(signal.reason)
      }
      const go = () => {
        end()
        resolve()
      }
      const timer = ms === undefined ? undefined : setTimeout(go, ms).unref()
      if (signal.aborted) return abort()
      this.#waiting.add(go)
      signal.addEventListener('abort', abort, { once: true })
    })
  }

  #tell(): void {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const each of waiting) each()
    for (const look of [...this.#paused]) look()
  }
}

// The ways to all origins lead through one link, which others use, too.

/** Of the background. */
export interface Manners {
  /** Whether it lets pass what is sent to anybody else. */
  readonly standsAside: boolean
  /** Infinity: as much as there is. */
  readonly maxBytesPerSecond: number
}

/**
 * It lets others pass for so long at a time: an answer that trickles does not hold it up for good, and its own registry is not kept from
 * sending for so long that it ends the answer.
 */
const ASIDE_MAX_MS = 250
/** Images are of a few. */
const WIRES_MAX = 64

export class Wires {
  readonly #manners: Manners
  readonly #throttle: Throttle
  readonly #each = new Map<string, Wire>()
  /** Answers that have begun and not ended, of what somebody waits for, or will soon. */
  #flowing = 0
  readonly #aside = new Set<() => void>()

  constructor(manners: Manners = { standsAside: true, maxBytesPerSecond: Number.POSITIVE_INFINITY }) {
    this.#manners = manners
    this.#throttle = new Throttle(manners.maxBytesPerSecond)
  }

  of(origin: string): Wire {
    let wire = this.#each.get(origin)
    if (wire === undefined) {
      if (this.#each.size >= WIRES_MAX) for (const [of, each] of this.#each) if (each.isIdle) this.#each.delete(of)
      wire = new Wire(this.#manners.standsAside)
      this.#each.set(origin, wire)
    }
    return wire
  }

  /** A read of so many bytes begins. */
  begin(origin: string, bytes: number, priority: Priority): Transfer {
    const transfer = this.of(origin).begin(bytes, priority)
    return priority === 'background' ? transfer : this.#counted(transfer)
  }

  /**
   * So many bytes came in the background: resolves when more may, or somebody begins to wait for them; undefined: now.
   * @param hurry is given what to call in the latter case
   */
  hold(bytes: number, hurry: (call: () => void) => void): Promise<void> | undefined {
    const paidMs = this.#throttle.take(bytes)
    const isAside = this.#manners.standsAside && this.#flowing > 0
    if (paidMs <= 0 && !isAside) return undefined
    return new Promise((resolve) => {
      const go = () => {
        clearTimeout(timer)
        this.#aside.delete(go)
        resolve()
      }
      const timer = setTimeout(go, Math.max(paidMs, isAside ? ASIDE_MAX_MS : 0))
      if (paidMs <= 0) this.#aside.add(go)
      hurry(go)
    })
  }

  /** An answer that is waited for uses no link. */
  #counted(transfer: Transfer): Transfer {
    let flows = false
    return {
      came: (to) => {
        if (!flows) this.#flowing++
        flows = true
        transfer.came(to)
      },
      turn: (hurry) => transfer.turn(hurry),
      end: () => {
        if (flows) this.#flowing--
        flows = false
        if (this.#flowing === 0) for (const go of [...this.#aside]) go()
        transfer.end()
      },
    }
  }
}
