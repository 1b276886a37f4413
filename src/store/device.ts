// A device in use: chunks are written to it, or to memory where the disk takes none; what its readers used is known; parts of it go when
// room is needed.
import { Failure } from '../errors.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import { READY_MISSING, READY_VERIFIED, sumsAt } from '../tree/ready.ts'
import { USED_PIECE_BYTES } from './clock.ts'
import { isRefusal } from './durable.ts'
import type { Slots } from './slots.ts'
import type { DeviceSpill, Slot, Spill } from './spill.ts'

/** What is noted of reads, as native code has it. */
export interface ReadNotes {
  /** Start, end and milliseconds since 1970 of each place that was read for the first time, since the last call. */
  take(): Float64Array
  /** Anew, as if nothing had been read. */
  begin(): void
  end(): void
}

/** Bytes `at` … `end` of the device were read for the first time. */
export interface FirstRead {
  readonly at: number
  readonly end: number
  /** Milliseconds since 1970. */
  readonly ms: number
}

/** What reads a device beside this thread. */
export interface DeviceReader {
  readonly reads: ReadNotes
  /** A bit for each USED_PIECE_BYTES that were read since the last time, the lowest first. */
  takeTouched(): Uint8Array
  /** From now on chunks may be in these files, too. */
  spill(deviceFd: number, readyFd: number): void
}

/** Part of a device that may go, and when it was used last. */
export interface Piece {
  readonly device: Device
  readonly piece: number
  readonly bytes: number
  readonly at: number
}

/** Whoever asked for a chunk has that long to read it before it may go; twice what a busy machine takes. */
const KEPT_AT_LEAST_MS = 100

/** A chunk that goes while it is read is asked for again; each time another must have taken its place. */
const READS_MAX = 8

/** What a device asks of the cache's room. */
export interface DeviceRoom {
  /** What stands in for the disk, if anything does. */
  readonly spill: Spill | undefined
  /** Whether so many bytes may go to the disk now. */
  admits(bytes: number): boolean | Promise<boolean>
  /** The disk took something. */
  took(): void
  /** The disk took nothing, for this reason. */
  refused(error: unknown): void
  enter(device: Device): void
  leave(device: Device): void
}

export class Device {
  /** Of the tree's folder. */
  readonly name: string
  readonly #slots: Slots
  readonly #table: ChunkTable
  readonly #room: DeviceRoom
  readonly #refetchable: () => boolean
  readonly #readers = new Set<DeviceReader>()
  readonly #sumsAt: number
  /** By piece: when it was filled last, where that is not long ago. */
  readonly #filled = new Map<number, number>()
  #spill: DeviceSpill | undefined
  #spillTold = false

  /** @param refetchable whether what is taken back could be fetched again now */
  constructor(name: string, slots: Slots, table: ChunkTable, room: DeviceRoom, refetchable: () => boolean) {
    this.name = name
    this.#slots = slots
    this.#sumsAt = sumsAt(slots.chunks)
    this.#table = table
    this.#room = room
    this.#refetchable = refetchable
    room.enter(this)
  }

  get chunks(): number {
    return this.#slots.chunks
  }

  get deviceFd(): number {
    return this.#slots.deviceFd
  }

  get readyFd(): number {
    return this.#slots.readyFd
  }

  get refetchable(): boolean {
    return this.#refetchable()
  }

  /** READY_MISSING, READY_VERIFIED or READY_STORED, as of now. */
  state(chunk: number): number {
    return this.#spill?.has(chunk) ? READY_VERIFIED : this.#slots.state(chunk)
  }

  /** The same of some chunks, in one read. */
  statesOf(chunks: readonly number[]): number[] {
    const states = this.#slots.statesOf(chunks)
    const spill = this.#spill
    return spill === undefined
      ? states
      : states.map((state, i) => (spill.has(chunks[i] as number) ? READY_VERIFIED : state))
  }

  /** Of all chunks, on disk alone. */
  states(): Promise<Uint8Array> {
    return this.#slots.states()
  }

  /** Before the kernel mounts the device itself; as Slots.hold. */
  hold(): Promise<(() => void) | undefined> {
    return this.#slots.hold()
  }

  /**
   * Has `write` put a chunk where there is room for it: on the disk, else in memory.
   * @throws what `write` throws, but for what memory can stand in for
   */
  async fill(chunk: number, write: (slot: Slot) => Promise<void>): Promise<void> {
    let bytes = 0
    const pieces: number[] = []
    this.#table.places(chunk, (at, length) => {
      bytes += length
      pieces.push(Math.floor(at / USED_PIECE_BYTES))
      this.#slots.clock.touch(at, at + length)
    })
    if (this.#slots.isWritable && (await this.#room.admits(bytes))) {
      try {
        await this.#slots.lock.write(() => write(this.#slot(chunk)))
        this.#room.took()
        const now = performance.now()
        for (const piece of pieces) this.#filled.set(piece, now)
        return
      } catch (error) {
        if (this.#room.spill === undefined || !isRefusal(error)) throw error
        this.#room.refused(error)
      }
    }
    this.#spill ??= this.#room.spill?.device(this.#table)
    if (this.#spill === undefined) throw new TypeError('memory was to stand in, and there is none')
    await this.#spill.fill(chunk, write)
    this.#tell()
  }

  /** Runs `verify`, which reads a chunk back and vouches for it. @throws what it throws */
  check<T>(chunk: number, verify: (slot: Slot) => Promise<T>): Promise<T> {
    return this.#slots.lock.write(() => verify(this.#slot(chunk)))
  }

  #slot(chunk: number): Slot {
    const { deviceFd, readyFd } = this
    return { deviceFd, readyFd, chunk, sumsAt: this.#sumsAt }
  }

  /**
   * Reads bytes that lie in these chunks, which `fill` brings where they are not there. What no chunk covers counts for nothing.
   * @throws what `fill` throws; Failure system: they go as fast as they come
   */
  async read(
    into: Uint8Array,
    at: number,
    chunks: readonly number[],
    fill: (missing: number[]) => Promise<void>,
  ): Promise<void> {
    for (let tries = 0; tries < READS_MAX; tries++) {
      const before = this.#taken()
      const states = this.statesOf(chunks)
      const missing = chunks.filter((_, i) => states[i] !== READY_VERIFIED)
      if (missing.length > 0) {
        await fill(missing)
        continue
      }
      await this.#slots.read(into, at)
      this.#spill?.read(into, at, chunks, (chunk) => this.#slots.state(chunk) !== READY_VERIFIED)
      const isThere = this.statesOf(chunks).every((state) => state === READY_VERIFIED)
      if (!isThere || this.#taken() !== before) continue
      this.#slots.clock.touch(at, at + into.length)
      return
    }
    throw Failure.system('the cache has too little room: what is read goes before it can be read')
  }

  #taken(): string {
    return `${this.#slots.takenBack()} ${this.#spill?.taken ?? 0}`
  }

  /** Tells whoever reads the device by itself. @returns what ends that */
  attach(reader: DeviceReader): () => void {
    this.#readers.add(reader)
    const files = this.#spill?.files
    if (files !== undefined) reader.spill(files.deviceFd, files.readyFd)
    return () => this.#readers.delete(reader)
  }

  #tell(): void {
    const files = this.#spill?.files
    if (this.#spillTold || files === undefined) return
    this.#spillTold = true
    for (const reader of this.#readers) reader.spill(files.deviceFd, files.readyFd)
  }

  /** Learns what was read since the last time. */
  collect(): void {
    for (const reader of this.#readers) this.#slots.clock.touchAll(reader.takeTouched())
  }

  /** Notes reads anew. What begins to read the device later does so by itself. */
  noteReads(): void {
    for (const { reads } of this.#readers) reads.begin()
  }

  /** What was noted since the last time, in no order where there are several readers. */
  takeReads(): FirstRead[] {
    const found: FirstRead[] = []
    for (const { reads } of this.#readers) {
      const flat = reads.take()
      for (let i = 0; i + 2 < flat.length; i += 3) {
        found.push({ at: flat[i] as number, end: flat[i + 1] as number, ms: flat[i + 2] as number }) // three each
      }
    }
    return found
  }

  /** Notes no more of them: reads then cost nothing for it. */
  ignoreReads(): void {
    for (const { reads } of this.#readers) reads.end()
  }

  /** Writes down what was used when. */
  keepClock(): Promise<void> {
    return this.#slots.clock.keep()
  }

  /** All that may go. */
  async pieces(): Promise<Piece[]> {
    const bytes = new Map<number, number>()
    for (const [chunk, state] of (await this.states()).entries()) {
      if (state === READY_MISSING) continue
      const { last, length } = this.#lastUsed(chunk)
      bytes.set(last, (bytes.get(last) ?? 0) + length)
    }
    const { clock } = this.#slots
    const before = performance.now() - KEPT_AT_LEAST_MS
    for (const [piece, at] of this.#filled) if (at < before) this.#filled.delete(piece)
    return [...bytes]
      .filter(([piece]) => !this.#filled.has(piece))
      .map(([piece, bytes]) => ({ device: this, piece, bytes, at: clock.at(piece) }))
  }

  /** Takes back the chunks that were used last with one of these pieces. @returns how many bytes went. @throws what the system throws */
  takeBack(pieces: ReadonlySet<number>): Promise<number> {
    return this.#slots.takeBack((states) =>
      [...states.keys()].filter((chunk) => states[chunk] !== READY_MISSING && pieces.has(this.#lastUsed(chunk).last)),
    )
  }

  /** Takes back chunks that were found damaged. @returns how many bytes went. @throws what the system throws */
  takeBackChunks(chunks: readonly number[]): Promise<number> {
    return this.#slots.takeBack(() => chunks)
  }

  /** Of a chunk's pieces the one that was used last; and how many bytes it has. */
  #lastUsed(chunk: number): { last: number; length: number } {
    const { clock } = this.#slots
    let [last, all] = [-1, 0]
    this.#table.places(chunk, (at, length) => {
      all += length
      for (let piece = Math.floor(at / USED_PIECE_BYTES); piece * USED_PIECE_BYTES < at + length; piece++) {
        if (last < 0 || clock.at(piece) > clock.at(last)) last = piece
      }
    })
    return { last, length: all }
  }

  /** Lets go of it. Nobody may write through its descriptors any more. */
  async close(): Promise<void> {
    this.#room.leave(this)
    this.collect()
    await this.#spill?.close()
    await this.#slots.close()
  }
}
