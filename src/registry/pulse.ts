// Whether a host gives anything at all, judged over all that is under way with it: streams share a link, and one of many may well wait
// long on a slow one.
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
