// Chunks that the disk does not take: full, out of quota, read-only, failing. They go to memory, a few at a time, and readers go on. A
// device's spill is a second pair of files of this process alone, in memory: its layout, and its ready bytes. Both are sparse.
//
// All devices together have one budget; what was read longest ago makes room, by the same rules as on the disk: byte unset, count up, punch.
import { closeSync, ftruncateSync, readSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Limit } from '../limit.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import { READY_HEADER_BYTES, READY_MISSING, READY_TAKEN_BACK_AT } from '../tree/ready.ts'
import { readyHeader } from './device-files.ts'
import type { Disk } from './disk.ts'
import { Holes } from './holes.ts'

/** Eight chunks of 4 MiB, which are the largest that builders make; a start reads some megabytes at once. */
const SPILL_MAX_BYTES = 32 << 20
/** Whoever asked for a chunk has that long to read it before it makes room; twice what a busy machine takes. */
const KEPT_AT_LEAST_MS = 100
const BLOCK_BYTES = 4096

interface Kept {
  readonly of: DeviceSpill
  readonly chunk: number
  readonly bytes: number
  readonly at: number
}

/** Where a worker writes a chunk. */
export interface Slot {
  deviceFd: number
  readyFd: number
  chunk: number
  /** Where checksums of the device’s blocks begin in the ready file; absent: none are kept. */
  sumsAt?: number
}

/** All that a process keeps in memory. */
export class Spill {
  readonly #disk: Disk
  readonly #maxBytes: number
  readonly #count: (bytes: number) => void
  /** The oldest first. */
  readonly #kept = new Set<Kept>()
  readonly #turns = new Limit(1)
  readonly #never = new AbortController().signal
  #bytes = 0

  /** @param count is told of bytes that are kept; negative: so many have gone */
  constructor(disk: Disk, count: (bytes: number) => void = () => {}, maxBytes = SPILL_MAX_BYTES) {
    this.#disk = disk
    this.#count = count
    this.#maxBytes = maxBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  device(chunks: ChunkTable): DeviceSpill {
    return new DeviceSpill(this, this.#disk, chunks)
  }

  /** Waits until there is room. */
  async take(bytes: number): Promise<void> {
    await this.#turns.take(async () => {
      while (this.#bytes > 0 && this.#bytes + bytes > this.#maxBytes) {
        const [oldest] = this.#kept
        const age = oldest === undefined ? 0 : performance.now() - oldest.at
        if (oldest === undefined || age < KEPT_AT_LEAST_MS) await sleep(Math.ceil(KEPT_AT_LEAST_MS - age))
        else await this.#drop(oldest)
      }
      this.#add(bytes)
    }, this.#never)
  }

  /** What was taken is not used. */
  giveBack(bytes: number): void {
    this.#add(-bytes)
  }

  keep(of: DeviceSpill, chunk: number, bytes: number): void {
    this.#kept.add({ of, chunk, bytes, at: performance.now() })
  }

  /** All of a device that is closed. */
  forget(device: DeviceSpill): void {
    for (const each of [...this.#kept]) {
      if (each.of !== device) continue
      this.#kept.delete(each)
      this.#add(-each.bytes)
    }
  }

  async #drop(kept: Kept): Promise<void> {
    this.#kept.delete(kept)
    await kept.of.drop(kept.chunk)
    this.#add(-kept.bytes)
  }

  #add(bytes: number): void {
    this.#bytes += bytes
    this.#count(bytes)
  }
}

export class DeviceSpill {
  readonly #spill: Spill
  readonly #disk: Disk
  readonly #chunks: ChunkTable
  readonly #there = new Set<number>()
  /** Chunks that are being written or dropped. */
  readonly #busy = new Map<number, Promise<void>>()
  #files: { deviceFd: number; readyFd: number } | undefined
  #holes: Holes | undefined
  #taken = 0

  constructor(spill: Spill, disk: Disk, chunks: ChunkTable) {
    this.#spill = spill
    this.#disk = disk
    this.#chunks = chunks
  }

  /** Whether a chunk is in memory, verified. */
  has(chunk: number): boolean {
    return this.#there.has(chunk)
  }

  /** How often something was dropped. */
  get taken(): number {
    return this.#taken
  }

  /** Undefined until something was kept. */
  get files(): { deviceFd: number; readyFd: number } | undefined {
    return this.#files
  }

  /** Has `write` put a chunk into memory. @throws what `write` throws */
  async fill(chunk: number, write: (slot: Slot) => Promise<void>): Promise<void> {
    for (let busy = this.#busy.get(chunk); busy !== undefined; busy = this.#busy.get(chunk)) await busy
    if (this.#there.has(chunk)) return
    const filling = this.#fill(chunk, write)
    this.#mark(chunk, filling)
    await filling
  }

  async #fill(chunk: number, write: (slot: Slot) => Promise<void>): Promise<void> {
    let bytes = 0
    this.#chunks.places(chunk, (at, length) => {
      bytes += (Math.ceil((at + length) / BLOCK_BYTES) - Math.floor(at / BLOCK_BYTES)) * BLOCK_BYTES
    })
    await this.#spill.take(bytes)
    try {
      this.#files ??= this.#open()
      await write({ ...this.#files, chunk })
    } catch (error) {
      this.#spill.giveBack(bytes)
      throw error
    }
    this.#there.add(chunk)
    this.#spill.keep(this, chunk, bytes)
  }

  /** Reads into the device bytes from `at` on what is in memory of those chunks that are `wanted`. */
  read(into: Uint8Array, at: number, chunks: readonly number[], wanted: (chunk: number) => boolean): void {
    const fd = this.#files?.deviceFd
    if (fd === undefined) return
    for (const chunk of chunks) {
      if (!this.has(chunk) || !wanted(chunk)) continue
      this.#chunks.places(chunk, (from, length) => {
        const [start, end] = [Math.max(from, at), Math.min(from + length, at + into.length)]
        if (start < end) readSync(fd, into, start - at, end - start, start) // of memory: no thread's time
      })
    }
  }

  async drop(chunk: number): Promise<void> {
    const dropping = this.#drop(chunk)
    this.#mark(chunk, dropping)
    await dropping
  }

  async #drop(chunk: number): Promise<void> {
    if (this.#files === undefined) return // closed meanwhile
    const { deviceFd, readyFd } = this.#files
    this.#there.delete(chunk)
    this.#taken++
    writeSync(readyFd, Uint8Array.of(READY_MISSING), 0, 1, READY_HEADER_BYTES + chunk)
    writeSync(readyFd, Uint32Array.of(this.#taken), 0, 4, READY_TAKEN_BACK_AT)
    const stays = (other: number) => other !== chunk && (this.#there.has(other) || this.#busy.has(other))
    this.#holes ??= new Holes(this.#chunks)
    await this.#disk.punchHoles(deviceFd, this.#holes.of([chunk], stays))
  }

  #mark(chunk: number, work: Promise<void>): void {
    const done = work.then(
      () => void this.#busy.delete(chunk),
      () => void this.#busy.delete(chunk), // whoever asked for it is told
    )
    this.#busy.set(chunk, done)
  }

  #open(): { deviceFd: number; readyFd: number } {
    const deviceFd = this.#disk.memoryFile('lazylayer-device')
    try {
      ftruncateSync(deviceFd, this.#chunks.deviceSize)
      const readyFd = this.#disk.memoryFile('lazylayer-ready')
      const header = readyHeader(this.#chunks)
      writeSync(readyFd, header, 0, header.length, 0)
      ftruncateSync(readyFd, READY_HEADER_BYTES + this.#chunks.length)
      return { deviceFd, readyFd }
    } catch (error) {
      closeSync(deviceFd)
      throw error
    }
  }

  /** Nobody may write through its descriptors any more. */
  async close(): Promise<void> {
    await Promise.all(this.#busy.values())
    this.#spill.forget(this)
    if (this.#files === undefined) return
    closeSync(this.#files.deviceFd)
    closeSync(this.#files.readyFd)
    this.#files = undefined
  }
}
