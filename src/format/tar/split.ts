// The records that containers/storage keeps to put a layer's tar together again from the files it unpacked (vbatts/tar-split):
// JSON, one a line. Type 1 is a file, with the CRC-64 of its contents; type 2 are the bytes of the tar between the contents of files,
// in base64. The lines are what Go's encoding/json writes.

/** Takes lines of JSON, as many at a time as there are. */
export interface SplitSink {
  split(lines: Uint8Array): void | Promise<void>
}

/** A write to the sink costs little beside what it writes. */
const LINES_BYTES = 64 << 10

export class SplitWriter {
  readonly #sink: SplitSink
  #segment: Uint8Array[] = []
  #lines: string[] = []
  #length = 0
  #position = 0

  constructor(sink: SplitSink) {
    this.#sink = sink
  }

  /** Bytes that are no contents. */
  raw(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#segment.push(bytes.slice())
  }

  /** Ends a segment: what comes next is contents, or a file without. */
  segment(): void {
    if (this.#segment.length === 0) return
    const payload = Buffer.concat(this.#segment).toString('base64')
    this.#segment = []
    this.#add(`{"type":2,"payload":"${payload}","position":${this.#position}}\n`)
  }

  /** @param sum of the contents; only where there are any */
  file(name: string, size: number, sum?: Uint8Array): void {
    const payload = sum === undefined ? 'null' : `"${Buffer.from(sum).toString('base64')}"`
    const fields = `"name":${goString(name)}${size === 0 ? '' : `,"size":${size}`}`
    this.#add(`{"type":1,${fields},"payload":${payload},"position":${this.#position}}\n`)
  }

  /** Gives lines to the sink, when there are enough. */
  async pass(): Promise<void> {
    if (this.#length >= LINES_BYTES) await this.end()
  }

  async end(): Promise<void> {
    const lines = Buffer.from(this.#lines.join(''))
    this.#lines = []
    this.#length = 0
    if (lines.length > 0) await this.#sink.split(lines)
  }

  #add(line: string): void {
    this.#lines.push(line)
    this.#length += line.length
    this.#position++
  }
}

/** Go's encoder escapes what HTML and JavaScript would stumble over as well. */
function goString(text: string): string {
  return JSON.stringify(text).replace(/[<>&\u2028\u2029]/g, escaped)
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}
