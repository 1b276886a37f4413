// When parts of a device were used last, so that those go first that were not used for longest. It is kept beside the device now and then,
// for other processes and the next life; a hint, so that damage to it, or two who write it at once, only spoil an order.
//
//   magic "lazyuse1" | one f64 a mebibyte of the device: milliseconds since 1970, little-endian
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { FILE_MODE, readWhole } from './durable.ts'

/** As `native/src/device.rs` has it. */
export const USED_PIECE_BYTES = 1 << 20
const MAGIC = new TextEncoder().encode('lazyuse1')
/** Beside the device. */
export const CLOCK_FILE = 'used'

export class UseClock {
  readonly #path: string
  readonly #times: Float64Array
  #changed = false

  constructor(folder: string, deviceSize: number) {
    this.#path = join(folder, CLOCK_FILE)
    this.#times = new Float64Array(Math.ceil(deviceSize / USED_PIECE_BYTES))
  }

  /** Milliseconds since 1970; 0: never. */
  at(piece: number): number {
    return this.#times[piece] ?? 0
  }

  /** Bytes `start` … `end` of the device are used now. */
  touch(start: number, end: number, now = Date.now()): void {
    for (let piece = Math.floor(start / USED_PIECE_BYTES); piece * USED_PIECE_BYTES < end; piece++) {
      this.#times[piece] = now
      this.#changed = true
    }
  }

  /** A bit a piece that was used since the last time, the lowest first. */
  touchAll(bits: Uint8Array, now = Date.now()): void {
    for (const [i, byte] of bits.entries()) {
      for (let bit = 0; byte >> bit > 0; bit++) {
        const piece = i * 8 + bit
        if (((byte >> bit) & 1) === 0 || piece >= this.#times.length) continue
        this.#times[piece] = now
        this.#changed = true
      }
    }
  }

  /** Learns what others wrote down. */
  async read(): Promise<void> {
    const bytes = await readWhole(this.#path, MAGIC.length + this.#times.byteLength).catch(() => undefined) // a hint
    if (!(bytes instanceof Uint8Array) || bytes.length !== MAGIC.length + this.#times.byteLength) return
    if (!Buffer.from(bytes.buffer, bytes.byteOffset, MAGIC.length).equals(MAGIC)) return
    const view = new DataView(bytes.buffer, bytes.byteOffset + MAGIC.length)
    const now = Date.now()
    for (const [piece, known] of this.#times.entries()) {
      const read = view.getFloat64(piece * 8, true)
      if (read > known && read <= now) this.#times[piece] = read
    }
  }

  /** Writes it down, if there is anything new. A full disk keeps the old one, or none. */
  async keep(): Promise<void> {
    if (!this.#changed) return
    this.#changed = false
    await this.read()
    const bytes = new Uint8Array(MAGIC.length + this.#times.byteLength)
    bytes.set(MAGIC)
    const view = new DataView(bytes.buffer, MAGIC.length)
    for (const [piece, time] of this.#times.entries()) view.setFloat64(piece * 8, time, true)
    await fs.writeFile(this.#path, bytes, { mode: FILE_MODE }).catch(() => {}) // a hint
  }
}
