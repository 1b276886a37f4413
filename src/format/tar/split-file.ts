// A tar-split file on its way to the disk: the records, gzipped as containers/storage keeps them, and the digest of that.
import { createHash } from 'node:crypto'
import { writeSync } from 'node:fs'
import { createGzip } from 'node:zlib'
import { Failure } from '../../errors.ts'
import { type Digest, finish } from '../../image/digest.ts'

/** Gzips what it is given into a file, and hashes what it writes. */
export class SplitFile {
  /** Takes half the time of the usual level, which somebody may wait for, and 5 % more space. */
  readonly #gzip = createGzip({ level: 1 })
  readonly #hash = createHash('sha256')
  readonly #written: Promise<void>

  constructor(fd: number) {
    this.#written = this.#write(fd)
    this.#written.catch(() => {}) // `split` or `end` throws it
  }

  async #write(fd: number): Promise<void> {
    let at = 0
    for await (const piece of this.#gzip as AsyncIterable<Uint8Array>) {
      this.#hash.update(piece)
      writeAll(fd, piece, at)
      at += piece.length
    }
  }

  async split(lines: Uint8Array): Promise<void> {
    if (this.#gzip.write(lines)) return
    const drained = new Promise<void>((done) => this.#gzip.once('drain', done))
    await Promise.race([drained, this.#written])
  }

  async end(): Promise<Digest> {
    this.#gzip.end()
    await this.#written
    return finish(this.#hash)
  }

  /** Writes nothing any more, whatever the compressor still holds: the descriptor may be another file's soon. */
  async close(): Promise<void> {
    this.#gzip.destroy()
    await this.#written.catch(() => {}) // whoever waited for it was told
  }
}

/** @throws Failure system */
export function writeAll(fd: number, bytes: Uint8Array, at: number): void {
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, at + done)
  } catch (cause) {
    throw Failure.system('a layer cannot be written to the cache', { cause })
  }
}
