// Whether a host gives anything at all, judged over all that is under way with it: streams share a link, and one of many may well wait
// long on a slow one.
import type { Limits } from './limits.ts'

export class Pulse {
  readonly #limits: Pick<Limits, 'windowMs' | 'windowBytes'>
  #asked = 0
  /** When it gave something last, or was asked for something while nothing was under way (performance.now). */
  #at = 0
  #windowAt = 0
  #windowBytes = 0

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
