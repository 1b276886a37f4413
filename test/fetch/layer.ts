// A layer for the filler's tests: blobs of known bytes, a device that is an array of states, and everything the filler is given.
import { setImmediate as turn } from 'node:timers/promises'
import { expect } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { Budget, type BudgetLimits } from '../../src/fetch/budget.ts'
import { Filler } from '../../src/fetch/filler.ts'
import type { Turn } from '../../src/fetch/flights.ts'
import type { Limits } from '../../src/fetch/requests.ts'
import type { Wires } from '../../src/fetch/wire.ts'
import type { Blob, Priority, Range } from '../../src/image/blob.ts'
import { digestOf } from '../../src/image/digest.ts'
import { NONE } from '../../src/tree/chunk.ts'
import { ChunkTable, encodeChunks } from '../../src/tree/chunk-table.ts'
import { READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'

export interface ChunkAt {
  blob: number
  stored: Range
}

/** Byte number `at` of a blob. */
const byteOf = (blob: number, at: number) => (blob * 89 + at * 31 + (at >> 8) * 7) & 255
export const bytesOf = (blob: number, { start, end }: Range) =>
  Uint8Array.from({ length: end - start }, (_, i) => byteOf(blob, start + i))

export function tableOf(chunks: readonly ChunkAt[], first = 0): ChunkTable {
  const digest = digestOf(new Uint8Array())
  const blobs = Array.from({ length: 1 + Math.max(0, ...chunks.map((each) => each.blob)) }, () => ({
    digest,
    size: 1e9,
  }))
  const made = chunks.map(({ blob, stored }, i) => ({
    blob,
    stored,
    size: stored.end - stored.start,
    codec: NONE,
    checks: [],
    places: [{ from: 0, length: stored.end - stored.start, at: i * 4096 }],
  }))
  return new ChunkTable(encodeChunks(blobs, made, first, chunks.length * 4096))
}

/** `count` chunks of `size` bytes in a row, `gap` apart. */
export const row = (count: number, size: number, gap = 0): ChunkAt[] =>
  Array.from({ length: count }, (_, i) => ({
    blob: 0,
    stored: { start: i * (size + gap), end: i * (size + gap) + size },
  }))

export interface Read {
  blob: number
  range: Range
  priority: Priority
  answer(): void
  /** Hands over its bytes up to that offset in the range. */
  come(to: number): void
  /** Resolves when more may come after that; undefined: now. */
  held: Promise<void> | undefined
  /** What comes next comes from its beginning, on other memory. */
  anew(): void
  fail(error: unknown): void
  aborted: boolean
  done: boolean
}

export interface LayerOptions {
  chunks: readonly ChunkAt[]
  first?: number
  limits?: Limits
  budget?: BudgetLimits
  wires?: Wires
  /** What the link carries in a round trip; default: as measured. */
  roundTripBytes?: number
  /** Limit of the event loop that the next read, decode or check takes; a read of 'hold' waits for its answer(). */
  delay?: () => number
  hold?: boolean
  /** Half of a range comes first. */
  halves?: boolean
}

export class Layer {
  readonly table: ChunkTable
  readonly states: Uint8Array
  readonly reads: Read[] = []
  readonly decoding = new Set<number>()
  readonly decoded: number[] = []
  /** How many more answers for a chunk are corrupt. */
  readonly corrupt = new Map<number, number>()
  /** Whom the last decode or check of a chunk was for; `urgent`: it was told that somebody waits. */
  readonly turns = new Map<number, { priority: Priority; signal: AbortSignal; urgent: boolean }>()
  /** Chunks whose state cannot be read. */
  readonly unreadable = new Set<number>()
  /** How often states of several chunks were read. */
  stateReads = 0
  /** READY_STORED chunks of which nothing can be said, and why. */
  readonly uncheckable = new Map<number, Failure>()
  /** READY_STORED chunks whose checks are about bytes that are gone. */
  readonly unrepeatable = new Set<number>()
  /** Whether a decode ends with its signal, as one that a worker has not begun. */
  heedsSignal = false
  /** Chunks that are said to be elsewhere, and what keeps them from being copied, if anything does. */
  readonly elsewhere = new Map<number, Failure | undefined>()
  /** READY_STORED chunks that do not match. */
  readonly rotten = new Set<number>()
  /** Set: what the next reads fail with. */
  failing: (() => unknown) | undefined
  checking = 0
  mostChecking = 0
  mostDecoding = 0
  readonly inFlight: Record<Priority, number> = { demand: 0, prefetch: 0, background: 0 }
  readonly most: Record<Priority, number> = { demand: 0, prefetch: 0, background: 0 }
  readonly budget: Budget
  readonly filler: Filler
  readonly #options: LayerOptions

  constructor(options: LayerOptions) {
    this.#options = options
    this.table = tableOf(options.chunks, options.first)
    this.states = new Uint8Array(options.chunks.length)
    this.budget = new Budget(options.budget, options.wires)
    this.filler = new Filler({
      chunks: this.table,
      blobs: (blob) => this.#blob(blob),
      slots: {
        state: (chunk) => {
          if (this.unreadable.has(chunk)) throw Failure.system('the disk does not give it back')
          return this.states[chunk] as number
        },
        statesOf: (chunks) => {
          this.stateReads++
          if (chunks.some((each) => this.unreadable.has(each))) throw Failure.system('the disk does not give it back')
          return chunks.map((each) => this.states[each] as number)
        },
      },
      decode: async (chunk, stored, index, turn) => {
        this.#given(index, turn)
        expect(this.decoding.has(index)).toBe(false)
        this.decoding.add(index)
        this.mostDecoding = Math.max(this.mostDecoding, this.decoding.size)
        expect(Buffer.from(stored).equals(bytesOf(chunk.blob, chunk.stored))).toBe(true)
        await this.#wait()
        this.decoding.delete(index)
        if (this.heedsSignal && turn.signal.aborted) throw Failure.aborted('not begun')
        const left = this.corrupt.get(index) ?? 0
        if (left > 0) {
          this.corrupt.set(index, left - 1)
          throw Failure.corrupt(`chunk ${index}`)
        }
        this.decoded.push(index)
        this.states[index] = READY_VERIFIED
      },
      reverify: async (_, index, turn) => {
        this.#given(index, turn)
        expect(this.states[index]).toBe(READY_STORED)
        this.checking++
        this.mostChecking = Math.max(this.mostChecking, this.checking)
        await this.#wait()
        this.checking--
        const error = this.uncheckable.get(index)
        if (error !== undefined) throw error
        if (this.rotten.has(index)) return 'damaged'
        if (this.unrepeatable.has(index)) return 'unknown'
        this.states[index] = READY_VERIFIED
        return 'right'
      },
      elsewhere: {
        found: Promise.resolve(true),
        has: (chunk) => this.elsewhere.has(chunk),
        copy: async (chunk, turn) => {
          this.#given(chunk, turn)
          await this.#wait()
          const error = this.elsewhere.get(chunk)
          if (error !== undefined) throw error
          this.states[chunk] = READY_VERIFIED
        },
      },
      budget: this.budget,
      origin: 'registry.example.com',
      ...(options.limits && { limits: options.limits }),
      ...(options.roundTripBytes !== undefined && {
        pace: { begin: () => () => {}, roundTripBytes: options.roundTripBytes },
      }),
    })
  }

  #given(chunk: number, turn: Turn): void {
    this.turns.set(chunk, { priority: turn.priority, signal: turn.signal, urgent: false })
    turn.onUrgent(() => Object.assign(this.turns.get(chunk) ?? {}, { urgent: true }))
  }

  get open(): Read[] {
    return this.reads.filter((each) => !each.done)
  }

  async #wait(): Promise<void> {
    for (let left = this.#options.delay?.() ?? 0; left >= 0; left--) await turn()
  }

  #blob(blob: number): Blob {
    return {
      digest: digestOf(new Uint8Array()),
      size: 1e9,
      read: async (range, { signal, priority = 'demand', onPart } = {}) => {
        const { promise, resolve, reject } = Promise.withResolvers<void>()
        const all = bytesOf(blob, range)
        let bytes = new Uint8Array(all.length)
        let came = 0
        const read: Read = {
          blob,
          range: { ...range },
          priority,
          answer: resolve,
          come(to) {
            bytes.set(all.subarray(came, to), came)
            read.held = onPart?.(bytes.subarray(came, to), came) ?? undefined
            came = to
          },
          anew() {
            bytes = new Uint8Array(all.length)
            came = 0
          },
          held: undefined,
          fail: reject,
          aborted: false,
          done: false,
        }
        this.reads.push(read)
        this.inFlight[priority] += all.length
        this.most[priority] = Math.max(this.most[priority], this.inFlight[priority])
        signal?.addEventListener('abort', () => {
          read.aborted = true
          reject(Failure.aborted('the read'))
        })
        try {
          if (!this.#options.hold) {
            void this.#wait().then(async () => {
              const error = this.failing?.()
              if (this.#options.halves) {
                read.come(Math.floor(all.length / 2))
                await this.#wait()
              }
              if (error === undefined) resolve()
              else reject(error)
            })
          }
          await promise
          bytes.set(all)
          return bytes
        } finally {
          read.done = true
          this.inFlight[priority] -= all.length
        }
      },
    }
  }
}

/** Lets everything happen that needs no answer. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 50; i++) await turn()
}
