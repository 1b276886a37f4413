// Whether a host gives anything at all, judged over all that is under way with it (streams share a link, and one of many may well wait long
// on a slow one), and the end of a request whose host gives nothing, or which others overtake for long.
import { finished, type Readable } from 'node:stream'
import { Failure } from '../errors.ts'
import type { Limits } from './limits.ts'

/** One request that is under way. */
export interface Stream {
  /** How many that were made later have come to their end, since it moved last. */
  readonly overtaken: number
  moved(): void
  /** It has come to its end. */
  overtake(): void
  /** It is no longer under way. */
  end(): void
}

export class Pulse {
  readonly #limits: Pick<Limits, 'windowMs' | 'windowBytes'>
  #asked = 0
  /** When it gave something last, or was asked for something while nothing was under way (performance.now). */
  #at = 0
  #windowAt = 0
  #windowBytes = 0
  #made = 0
  readonly #streams = new Set<{ number: number; overtaken: number }>()

  constructor(limits: Pick<Limits, 'windowMs' | 'windowBytes'>) {
    this.#limits = limits
  }

  /** Something is asked of it until the returned function is called. */
  begin(): () => void {
    if (this.#asked++ === 0) this.#at = performance.now()
    let open = true
    return () => {
      if (open) this.#asked--
      open = false
    }
  }

  /** A request is under way until its `end`. */
  stream(): Stream {
    const streams = this.#streams
    const state = {
      number: this.#made++,
      overtaken: 0,
      moved: () => {
        state.overtaken = 0
      },
      overtake: () => {
        for (const each of streams) if (each.number < state.number) each.overtaken++
      },
      end: () => void streams.delete(state),
    }
    streams.add(state)
    return state
  }

  /** Something that was asked for came, however small. */
  gave(): void {
    this.#at = performance.now()
  }

  /** Bytes of a body came: by themselves they count only when they are enough to call it a flow. */
  came(bytes: number): void {
    const now = performance.now()
    if (now - this.#windowAt > this.#limits.windowMs) [this.#windowAt, this.#windowBytes] = [now, 0]
    this.#windowBytes += bytes
    if (this.#windowBytes < this.#limits.windowBytes) return
    ;[this.#windowAt, this.#windowBytes] = [now, 0]
    this.#at = now
  }

  /** Milliseconds that it gave nothing although it was asked, or since `from` (performance.now) if that is later. */
  silentMs(from = 0): number {
    return this.#asked === 0 ? 0 : performance.now() - Math.max(this.#at, from)
  }
}

/**
 * Hands a body on, part by part as it comes: while what `take` returns is pending nothing more of it comes, nor does this end; false is enough
 * of it. Not an iterator of its parts: that is five promises a part, and there are a hundred of them in a megabyte.
 * @throws what `take` throws, or what ended the body too early
 */
export type AnswerBody = (take: (bytes: Uint8Array) => Promise<void> | false | undefined) => Promise<void>

/** How often it is looked, as a share of the shorter deadline. */
const LOOKS = 8

export class Watch {
  readonly #pulse: Pulse
  readonly #timer: NodeJS.Timeout
  readonly #takesLongMs: number
  /** Since when the host may have been silent towards this request. */
  #from = performance.now()
  /** The same, for this stream alone. */
  #streamFrom = performance.now()
  #streamBytes = 0
  #received = 0
  #taking = false

  /** @param stop is called once at most, with what to tell whoever waits */
  constructor(
    host: string,
    limits: Limits,
    pulse: Pulse,
    stream: Stream,
    stop: (failure: Failure, silent: boolean) => void,
  ) {
    this.#pulse = pulse
    const { stallMs, streamMs, streamBytes, overtakes } = limits
    this.#takesLongMs = stallMs / LOOKS
    const end = (failure: Failure, silent: boolean) => {
      this.close()
      stop(failure, silent)
    }
    const look = () => {
      // the host is not to blame for a reader who takes his time
      if (this.#taking) return
      const silentMs = this.#pulse.silentMs(this.#from)
      if (silentMs >= stallMs) {
        const what = this.#received === 0 ? 'does not answer' : `stopped after ${this.#received} bytes`
        end(Failure.timeout(`${host} ${what}`, { why: `it gave nothing for ${Math.round(silentMs)} ms` }), true)
        return
      }
      const now = performance.now()
      if (now - this.#streamFrom < streamMs) return
      if (this.#streamBytes < streamBytes) {
        // whoever is last in a long row is not forgotten
        if (stream.overtaken < overtakes) return
        const ms = Math.round(now - this.#streamFrom)
        const why = `it sent ${this.#streamBytes} bytes of it in ${ms} ms, and answered ${stream.overtaken} later ones`
        end(Failure.timeout(`${host} leaves a request behind`, { why }), false)
        return
      }
      ;[this.#streamFrom, this.#streamBytes] = [now, 0]
      stream.moved()
    }
    this.#timer = setInterval(look, Math.max(5, Math.min(stallMs, streamMs) / LOOKS))
  }

  /** A body for a reader who may take his time; `came` is told how much of it came. */
  through(body: Readable, came: (bytes: number) => void): AnswerBody {
    return (take) =>
      new Promise((resolve, reject) => {
        const onData = (bytes: Uint8Array) => {
          came(bytes.length)
          this.#pulse.came(bytes.length)
          this.#received += bytes.length
          this.#streamBytes += bytes.length
          let taking: ReturnType<typeof take>
          try {
            taking = take(bytes)
          } catch (error) {
            end(error)
            return
          }
          if (taking === false) end()
          else if (taking !== undefined) waitFor(taking)
        }
        let pending: Promise<void> | undefined
        const waitFor = (taking: Promise<void>) => {
          const handed = performance.now()
          this.#taking = true
          body.pause()
          pending = taking.then(() => {
            pending = undefined
            this.#taking = false
            if (performance.now() - handed > this.#takesLongMs) this.#from = performance.now()
            body.resume()
          })
          pending.catch(end)
        }
        const end = (error?: unknown) => {
          body.off('data', onData)
          unwatch()
          const settle = () => (error === undefined || error === null ? resolve() : reject(error))
          // whoever asks for the rest must know what of it was taken
          if (pending === undefined) settle()
          else pending.then(settle, reject)
        }
        const unwatch = finished(body, end)
        body.on('data', onData)
      })
  }

  /** Hands on a body that is sent; what the host takes is as good as what it gives. */
  async *sending(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const bytes of body) {
      yield bytes
      this.#pulse.gave()
      this.#streamBytes += bytes.length
    }
  }

  close(): void {
    clearInterval(this.#timer)
  }
}

/** By the first digit of the status; `none`: there was no answer, or whoever asked gave up. */
const ANSWERS = ['2xx', '3xx', '4xx', '5xx', 'none'] as const
export type AnswerClass = (typeof ANSWERS)[number]

/** What is asked for; a blob may be asked of the storage that a registry leads to. `upload`: all of a push. */
export type AskedFor = 'manifest' | 'blob' | 'token' | 'upload' | 'other'

/** Of one kind, with one class of answers. */
export interface AnswerDurations extends Times {
  readonly kind: AskedFor
  readonly code: AnswerClass
}

export class AnswerTimes {
  readonly #of = new Map<string, { kind: AskedFor; code: AnswerClass; durations: Durations }>()

  /** @param status undefined: none came */
  note(kind: AskedFor, status: number | undefined, seconds: number): void {
    const code = classOf(status)
    const key = `${kind} ${code}`
    const found = this.#of.get(key) ?? { kind, code, durations: new Durations() }
    this.#of.set(key, found)
    found.durations.note(seconds)
  }

  /** Those that there were. */
  all(): AnswerDurations[] {
    return [...this.#of.values()].map(({ kind, code, durations }) => ({ kind, code, ...durations.times }))
  }
}

function classOf(status: number | undefined): AnswerClass {
  if (status === undefined) return 'none'
  return ANSWERS.find((each) => each.startsWith(String(status)[0] ?? '')) ?? '5xx'
}

/** From a call within a machine, or to a registry in the same rack, to what is given up. */
const UP_TO_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60]

/** `counts`: of what took no longer than each of `upTo`, and longer than the one before; and, one more, of what took longer than all. */
export interface Times {
  /** Seconds. */
  readonly upTo: readonly number[]
  readonly counts: readonly number[]
  /** Of all together. */
  readonly seconds: number
}

export class Durations {
  readonly #counts = Array<number>(UP_TO_SECONDS.length + 1).fill(0)
  #seconds = 0

  note(seconds: number): void {
    const found = UP_TO_SECONDS.findIndex((each) => seconds <= each)
    const at = found < 0 ? UP_TO_SECONDS.length : found
    this.#counts[at] = (this.#counts[at] ?? 0) + 1
    this.#seconds += seconds
  }

  get times(): Times {
    return { upTo: UP_TO_SECONDS, counts: [...this.#counts], seconds: this.#seconds }
  }
}
