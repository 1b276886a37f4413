// Records that are on disk before anybody is answered: a file of lines, each a record with its digest. What was being written when the
// machine lost power is a line that has no end, and was promised to nobody. A line that does not fit its digest is set aside, in a file beside
// it. The file is written anew when it is opened, and when most of its lines are history.
import fs, { type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../errors.ts'
import { diskFailure, dropDamaged, readWhole, replaceFile } from '../store/durable.ts'
import { decodeRecord, encodeRecord } from '../store/record.ts'

/** 100,000 snapshots of 2 KiB; what is longer is no journal of ours. */
const FILE_MAX_BYTES = 1 << 30
const NAME = 'journal'
/** What was set aside at the last start that found damage, for whoever wants to look at it. */
export const DAMAGED_NAME = 'journal.damaged'

/** `synced`: outlives a power cut. `written`: outlives this process. */
export type Durability = 'synced' | 'written'

export class Journal {
  readonly #folder: string
  #file: FileHandle
  #length: number
  #lines: number
  /** What is open may not be what the next process reads: a write could not be taken back, or the file was not replaced. It must be written anew. */
  #torn = false

  private constructor(folder: string, file: FileHandle, length: number, lines: number) {
    this.#folder = folder
    this.#file = file
    this.#length = length
    this.#lines = lines
  }

  /**
   * @param folder exists
   * @returns every record in the order in which they were appended, and the lines that are none any more
   * @throws Failure system
   */
  static async read(folder: string): Promise<{ records: unknown[]; damaged: Uint8Array[] }> {
    const bytes = await readWhole(join(folder, NAME), FILE_MAX_BYTES)
    const records: unknown[] = []
    const damaged: Uint8Array[] = []
    if (bytes === undefined) return { records, damaged }
    if (bytes === 'damaged') throw Failure.system(`${join(folder, NAME)} cannot be read`)
    let start = 0
    for (let end = bytes.indexOf(LF); end >= 0; end = bytes.indexOf(LF, start)) {
      const line = bytes.subarray(start, end + 1)
      const record = decodeRecord(line.subarray(0, -1))
      if (record === undefined) damaged.push(line)
      else records.push(record)
      start = end + 1
    }
    return { records, damaged }
  }

  /** Keeps lines that are none of the journal any more, and records that have no place in it. @throws Failure system */
  static async setAside(folder: string, damaged: readonly Uint8Array[], records: Iterable<object>): Promise<void> {
    await replaceFile(folder, join(folder, DAMAGED_NAME), Buffer.concat([...damaged, encoded(records).bytes]))
  }

  /** Begins anew with these records. @throws Failure system */
  static async write(folder: string, records: Iterable<object>): Promise<Journal> {
    // written by a process that died before it was done
    const left = (await fs.readdir(folder)).filter((each) => each !== NAME && each !== DAMAGED_NAME)
    for (const each of left) await dropDamaged(join(folder, each))
    const { bytes, lines } = encoded(records)
    const path = join(folder, NAME)
    await replaceFile(folder, path, bytes)
    return new Journal(folder, await openEnd(path), bytes.length, lines)
  }

  /** Lines in the file: records that count, and what they were before. */
  get lines(): number {
    return this.#lines
  }

  /** All of them, or none. One call at a time. @param all what the journal is to hold, if it must be written anew. @throws Failure system */
  async append(records: readonly object[], durability: Durability, all: () => Iterable<object>): Promise<void> {
    if (this.#torn) await this.rewrite(all())
    const { bytes, lines } = encoded(records)
    try {
      await this.#file.appendFile(bytes)
      if (durability === 'synced') await this.#file.datasync()
    } catch (cause) {
      await this.#file.truncate(this.#length).catch(() => {
        this.#torn = true
      })
      throw diskFailure(join(this.#folder, NAME), cause)
    }
    this.#length += bytes.length
    this.#lines += lines
  }

  /** Holds these records alone. @throws Failure system */
  async rewrite(records: Iterable<object>): Promise<void> {
    const { bytes, lines } = encoded(records)
    const path = join(this.#folder, NAME)
    const before = this.#file
    try {
      await replaceFile(this.#folder, path, bytes)
      this.#file = await openEnd(path)
    } catch (error) {
      this.#torn = true // the file that is open may have no name any more
      throw error
    }
    this.#torn = false
    this.#length = bytes.length
    this.#lines = lines
    await before.close()
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

const LF = 10

function encoded(records: Iterable<object>): { bytes: Uint8Array; lines: number } {
  const all = [...records].map(encodeRecord) // each ends in a line feed, and has no other
  return { bytes: Buffer.concat(all), lines: all.length }
}

async function openEnd(path: string): Promise<FileHandle> {
  try {
    return await fs.open(path, 'a')
  } catch (cause) {
    throw diskFailure(path, cause)
  }
}
