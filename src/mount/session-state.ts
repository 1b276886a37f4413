// What a process that goes on with a mount of ours must know of it: records by key, in a file in memory that outlives this process,
// because the keeper has it open. A line is added before what it tells of happens; so a process may die between any two.
//
//   lazylayer 1\n                 the version of what follows
//   + ["key",value]\n             set; the last one of a key counts
//   - ["key"]\n                   deleted
//
// From time to time all records are written again, behind the rest, which then goes: read from the first line that is left on, or from an
// earlier one, the file says the same.
import { closeSync, fstatSync, readSync, writeSync } from 'node:fs'
import { Failure } from '../errors.ts'
import type { Disk } from '../store/disk.ts'

/** Of the records and of what they mean. */
const VERSION = 'lazylayer 1'
const HEAD_BYTES = 4096
/** The file has at most so much more than its records. */
const SLACK_BYTES = 1 << 20
/** More than all layers of a node take; what is longer is none of ours. */
const RECORDS_MAX_BYTES = 256 << 20
const PART_BYTES = 1 << 20

export class SessionState {
  readonly fd: number
  readonly #disk: Pick<Disk, 'punchHoles'>
  readonly #records: Map<string, string>
  #bytes = 0
  #end: number
  #start = HEAD_BYTES

  private constructor(fd: number, disk: Pick<Disk, 'punchHoles'>, records: Map<string, string>, end: number) {
    this.fd = fd
    this.#disk = disk
    this.#records = records
    this.#end = end
    for (const line of records.values()) this.#bytes += line.length
  }

  /** Of a new mount. @throws what the system throws */
  static create(disk: Pick<Disk, 'memoryFile' | 'punchHoles'>): SessionState {
    const fd = disk.memoryFile('lazylayer-session')
    writeSync(fd, `${VERSION}\n`, 0)
    return new SessionState(fd, disk, new Map(), HEAD_BYTES)
  }

  /** Of a mount of a process that is gone, to be gone on with. @throws Failure unsupported: another version wrote it, corrupt */
  static read(fd: number, disk: Pick<Disk, 'punchHoles'>): SessionState {
    const { size } = fstatSync(fd)
    const head = Buffer.alloc(HEAD_BYTES)
    readSync(fd, head, 0, HEAD_BYTES, 0)
    const version = head.subarray(0, Math.max(0, head.indexOf(10))).toString()
    if (version !== VERSION) {
      throw Failure.unsupported('the mount is of another version of lazylayer', {
        why: `its state says ${JSON.stringify(version.slice(0, 40))}, and this version knows ${JSON.stringify(VERSION)}`,
      })
    }
    const records = new Map<string, string>()
    const bytes = bytesOf(fd, size)
    // the last line may be cut off: the next one takes its place
    const whole = bytes.lastIndexOf(10) + 1
    for (const line of bytes.subarray(0, whole).toString().replace(/^\0+/, '').split('\n').slice(0, -1)) {
      const [key] = parse(line.slice(2))
      if (line.startsWith('+ ')) records.set(key, line.slice(2))
      else records.delete(key)
    }
    return new SessionState(fd, disk, records, size - (bytes.length - whole))
  }

  /** @throws what the system throws */
  set(key: string, value: unknown): void {
    const text = JSON.stringify([key, value])
    if (this.#records.get(key) === text) return
    this.#forget(key)
    this.#records.set(key, text)
    this.#bytes += text.length
    this.#add(`+ ${text}\n`)
  }

  delete(key: string): void {
    if (!this.#records.has(key)) return
    this.#forget(key)
    this.#add(`- ${JSON.stringify([key])}\n`)
  }

  get(key: string): unknown {
    const text = this.#records.get(key)
    return text === undefined ? undefined : parse(text)[1]
  }

  /** Records whose keys begin so, by what comes behind that. */
  of(prefix: string): Map<string, unknown> {
    const found = [...this.#records].filter(([key]) => key.startsWith(prefix))
    return new Map(found.map(([key, text]) => [key.slice(prefix.length), parse(text)[1]]))
  }

  close(): void {
    closeSync(this.fd)
  }

  #forget(key: string): void {
    this.#bytes -= this.#records.get(key)?.length ?? 0
    this.#records.delete(key)
  }

  #add(line: string): void {
    this.#write(line)
    if (this.#end - this.#start < 2 * this.#bytes + SLACK_BYTES) return
    const start = this.#end
    this.#write([...this.#records.values()].map((text) => `+ ${text}\n`).join(''))
    const old = Float64Array.of(this.#start, start)
    this.#start = start
    void this.#disk.punchHoles(this.fd, old).catch(() => {}) // it is memory only
  }

  #write(text: string): void {
    const bytes = Buffer.from(text)
    for (let done = 0; done < bytes.length; )
      done += writeSync(this.fd, bytes, done, bytes.length - done, this.#end + done)
    this.#end += bytes.length
  }
}

/** Behind the head, as far as they were not taken away. @throws Failure corrupt */
function bytesOf(fd: number, size: number): Buffer {
  const parts: Buffer[] = []
  let bytes = 0
  for (let at = HEAD_BYTES; at < size; at += PART_BYTES) {
    const part = Buffer.alloc(Math.min(PART_BYTES, size - at))
    const length = readSync(fd, part, 0, part.length, at)
    // what was taken away is zeros
    if (parts.length === 0 && part.every((byte) => byte === 0)) continue
    parts.push(part.subarray(0, length))
    bytes += length
    if (bytes > RECORDS_MAX_BYTES) throw Failure.corrupt('the state of the mount is longer than any')
  }
  return Buffer.concat(parts)
}

/** As it was written here. */
function parse(text: string): [string, unknown] {
  return JSON.parse(text) as [string, unknown]
}
