// CRC-64 of ISO 3309, as Go's hash/crc64 computes it with the table ISO; tar-split keeps it for each file's contents.
//
// The polynomial is x^64 + x^4 + x^3 + x + 1, so a remainder times x^64 is the remainder times (x^4 + x^3 + x + 1), and what that pushes
// over x^63 once more times the same: eight bytes a step with shifts, without tables. Bits are reflected: x^0 is the highest bit.

export class Crc64 {
  // The complement of the checksum so far, in halves.
  #high = -1
  #low = -1
  /** Bytes that do not make eight yet. */
  readonly #rest = new Uint8Array(8)
  #held = 0

  update(bytes: Uint8Array): void {
    let at = 0
    if (this.#held > 0) {
      const taken = Math.min(8 - this.#held, bytes.length)
      this.#rest.set(bytes.subarray(0, taken), this.#held)
      this.#held += taken
      at = taken
      if (this.#held < 8) return
      this.#words(this.#rest, 0, 8)
      this.#held = 0
    }
    const end = bytes.length - ((bytes.length - at) % 8)
    this.#words(bytes, at, end)
    this.#rest.set(bytes.subarray(end))
    this.#held = bytes.length - end
  }

  /** Eight bytes, big-endian. */
  digest(): Uint8Array {
    let [high, low] = [this.#high, this.#low]
    for (const byte of this.#rest.subarray(0, this.#held)) {
      low ^= byte
      for (let bit = 0; bit < 8; bit++) {
        const over = low & 1
        low = (low >>> 1) | (high << 31)
        high = (high >>> 1) ^ (over === 1 ? 0xd8000000 : 0)
      }
    }
    const sum = new Uint8Array(8)
    new DataView(sum.buffer).setInt32(0, ~high)
    new DataView(sum.buffer).setInt32(4, ~low)
    return sum
  }

  #words(bytes: Uint8Array, start: number, end: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    let [high, low] = [this.#high, this.#low]
    for (let at = start; at < end; at += 8) {
      low ^= view.getInt32(at, true)
      high ^= view.getInt32(at + 4, true)
      const over = (low << 31) ^ (low << 29) ^ (low << 28)
      const nextLow = low ^ ((low >>> 1) | (high << 31)) ^ ((low >>> 3) | (high << 29)) ^ ((low >>> 4) | (high << 28))
      high ^= (high >>> 1) ^ (high >>> 3) ^ (high >>> 4) ^ over ^ (over >>> 1) ^ (over >>> 3) ^ (over >>> 4)
      low = nextLow
    }
    this.#high = high
    this.#low = low
  }
}
