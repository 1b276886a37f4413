// The cache's share of its disk. When it has more than it may, what was not used for longest goes: whole devices that nobody uses, kept
// blobs, and pieces of devices that are in use, as long as they could be fetched again. Where nothing can go, or the disk takes no more,
// chunks go to memory (spill.ts) and whatever nobody waits for pauses, until there is room again.
//
//   fill ── admits? ──▶ disk ──▶ wrote ──▶ over the limit? ──▶ a round: measure, choose the oldest, take them back
//              └─ no ─▶ memory
import { stat, statfs, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe } from '../errors.ts'
import type { Device, Piece } from './device.ts'
import type { Disk } from './disk.ts'
import { isRefusal, lockedFolder, systemCode } from './durable.ts'
import type { Locks } from './locks.ts'
import { allowed, ROOM_LIMITS, type RoomLimits } from './room-limits.ts'
import { Spill } from './spill.ts'
import { devicesIn, type Goes, restOf } from './usage.ts'

/** Goes down to that share of the limit, so that not every chunk makes a round. */
const LOW = 0.9
/** Goes on without waiting while there is not more than that. */
const HIGH = 1.05
/** A round looks at every file and punches: longer than that it is the disk's fault, and memory does. */
const ROUND_WAIT_MS = 2_000
/** A disk that takes nothing is tried again then. */
const TRY_AGAIN_MS = 5_000
/** How often it is looked whether others want room, or fill the disk. */
const LOOK_MS = 5_000
/** How often it is written down what was used when, and measured what has not changed by our doing. */
const KEEP_MS = 60_000
/** The first time that long, for it is begun when the first device is opened, which is before it is filled. */
const FIRST_WAIT_MS = 250
/** A cache that is too small takes chunks and does not, many times a minute. */
const SAY_AGAIN_MS = 600_000
/** What lies beside devices grows slowly, and all of its files are looked at: again after this many times as long as that took. */
const REST_AGAIN_TIMES = 50
const REST_AGAIN_MIN_MS = 1_000
/** Others write meanwhile: measured again when a share of what is left was written, but not for less than that share of all. */
const MEASURED_AGAIN = 1 / 4
const MEASURED_AGAIN_MIN = 1 / 64
/** Others that use the cache are to make room, since the time that it has. */
const CROWDED = 'crowded'

export interface RoomParts {
  /** Of the cache. */
  dir: string
  locks: Locks
  /** Without it there is no limit, and nothing stands in for the disk. */
  disk: Disk | undefined
  limits?: RoomLimits
  /** Is told of bytes that are in memory in place of the disk; negative: so many have gone. */
  inMemory?: ((bytes: number) => void) | undefined
  /** Kept blobs, metadata of what nobody has used for long: whatever else goes whole. */
  others(): Promise<Goes[]>
  /** Of trees, as folders' names. */
  pinned(): Promise<ReadonlySet<string>>
  warn(message: string): void
}

interface Measured {
  used: number
  free: number
  limit: number
}

export class Room {
  readonly spill: Spill | undefined
  readonly #parts: RoomParts
  readonly #limits: RoomLimits
  readonly #devices = new Set<Device>()
  #measured: Measured | undefined
  #keptAt = performance.now()
  /** Bytes that were admitted since it was measured. */
  #written = 0
  /** Bytes that wait for a round. */
  #waiting = 0
  #rest: { until: number; bytes: number } | undefined
  #round: Promise<void> | undefined
  /** Until then the disk is not tried. */
  #refusedUntil = 0
  #full = new AbortController()
  #crowdedAt = 0
  #saidAt = Number.NEGATIVE_INFINITY
  #freed = 0
  readonly #timer: NodeJS.Timeout | undefined

  constructor(parts: RoomParts) {
    this.#parts = parts
    this.#limits = parts.limits ?? ROOM_LIMITS
    if (parts.disk === undefined) return
    this.spill = new Spill(parts.disk, parts.inMemory)
    this.#crowdedAt = Date.now()
    this.#timer = setInterval(() => void this.#look(), LOOK_MS).unref() // warns of its own errors
  }

  /** Aborts when the disk takes no more: what nobody waits for stops. Another one where it does again. */
  get full(): AbortSignal {
    return this.#full.signal
  }

  /** Bytes that were taken back since the start. */
  get freed(): number {
    return this.#freed
  }

  /** What the cache may have, in bytes; undefined: it was not measured yet. */
  get limit(): number | undefined {
    return this.#measured?.limit
  }

  enter(device: Device): void {
    this.#devices.add(device)
    if (this.#measured === undefined && this.spill !== undefined) this.#begin()
  }

  leave(device: Device): void {
    this.#devices.delete(device)
  }

  /** Whether so many bytes may go to the disk; waits while a round makes room for them. */
  admits(bytes: number): boolean | Promise<boolean> {
    if (this.spill === undefined) return true
    if (this.isRefused) return false
    if (this.#measured === undefined) return this.#whenMeasured(bytes)
    const { used, limit } = this.#measured
    if (
      used + this.#written + bytes > limit ||
      this.#written > Math.max((limit - used) * MEASURED_AGAIN, limit * MEASURED_AGAIN_MIN)
    ) {
      this.#begin()
    }
    return this.#fits(bytes) || this.#whenMade(bytes)
  }

  async #whenMeasured(bytes: number): Promise<boolean> {
    this.#begin()
    await Promise.race([this.#round, sleep(FIRST_WAIT_MS, undefined, { ref: false })])
    if (this.#measured !== undefined) return this.admits(bytes)
    this.#written += bytes
    return true
  }

  #fits(bytes: number): boolean {
    const { used, limit } = this.#measured ?? { used: 0, limit: 0 }
    if (used + this.#written + bytes > limit * HIGH) return false
    this.#written += bytes
    return true
  }

  async #whenMade(bytes: number): Promise<boolean> {
    if (bytes > (this.#measured?.limit ?? 0)) return false // nothing would be left for it to fit in
    this.#waiting += bytes
    await Promise.race([this.#round, sleep(ROUND_WAIT_MS, undefined, { ref: false })])
    this.#waiting -= bytes
    return this.#fits(bytes)
  }

  /** Whether so many bytes more make nothing else go. */
  hasRoom(bytes: number): boolean {
    if (this.spill === undefined) return true
    if (this.isRefused) return false
    const { used, limit } = this.#measured ?? { used: 0, limit: Number.POSITIVE_INFINITY }
    return used + this.#written + this.#waiting + bytes <= limit * LOW
  }

  /** The disk took what it was given. */
  took(): void {
    if (this.#full.signal.aborted) this.#full = new AbortController()
  }

  /** Whether the disk took nothing a moment ago. */
  get isRefused(): boolean {
    return performance.now() < this.#refusedUntil
  }

  /** The disk took nothing: memory does for a while, and room is made. */
  refused(error: unknown): void {
    this.#refusedUntil = performance.now() + TRY_AGAIN_MS
    this.#say(describe(error))
    this.#begin(true)
  }

  #say(why: string): void {
    if (this.#full.signal.aborted) return
    this.#full.abort()
    if (performance.now() - this.#saidAt < SAY_AGAIN_MS) return
    this.#saidAt = performance.now()
    this.#parts.warn(`the cache takes no more, and what comes goes through memory until it does: ${why}`)
  }

  /** Has the cache give some of what it has back, when the disk is full. Resolves when it did what it could. */
  async relieve(): Promise<void> {
    await this.#round
    this.#begin(true)
    await this.#round
  }

  /** @param needs the disk is full, whatever the limit says */
  #begin(needs = false): void {
    this.#round ??= this.#make(needs)
      .catch((error) => this.#warn(`no room can be made in ${this.#parts.dir}`, error))
      .finally(() => {
        this.#round = undefined
      })
  }

  /** One process at a time, so that two do not both take back what one has to. */
  async #make(needs: boolean): Promise<void> {
    if ((await this.#excess()) <= 0 && !needs) return
    await lockedFolder(this.#parts.locks, join(this.#parts.dir, 'trees'), async () => {
      const excess = await this.#excess()
      if (excess <= 0 && !needs) return
      const { used, limit } = this.#measured ?? { used: 0, limit: 0 }
      // a disk may be full though the cache is within its limit
      const goal = Math.max(excess, 0) + Math.min(used, limit) * (1 - LOW)
      const freed = await this.makeFree(goal)
      if (freed > 0) this.#refusedUntil = 0
      const over = (await this.#excess()) - limit * (HIGH - 1)
      if (over <= 0) return
      await this.#ask()
      if (freed > 0) return // what came just now goes soon
      this.#refusedUntil = performance.now() + TRY_AGAIN_MS
      this.#say(`it has ${used} of ${Math.floor(limit)} bytes, and nothing of it may go now`)
    })
  }

  /** Bytes above the limit, with what is about to be written. */
  async #excess(): Promise<number> {
    const { used, limit } = await this.#measure()
    return used + this.#written + this.#waiting - limit
  }

  /** Has the other processes make room. */
  async #ask(): Promise<void> {
    const path = join(this.#parts.dir, CROWDED)
    const now = new Date()
    await utimes(path, now, now).catch(() => writeFile(path, '', { mode: 0o600 }).catch(() => {})) // a full disk: they look themselves
    this.#crowdedAt = Date.now()
  }

  async #look(): Promise<void> {
    try {
      if (this.#devices.size === 0) return
      const now = performance.now()
      const isTime = now - this.#keptAt > KEEP_MS
      if (isTime) {
        this.#keptAt = now
        for (const each of this.#devices) {
          each.collect()
          await each.keepClock()
        }
      }
      const asked = await stat(join(this.#parts.dir, CROWDED)).catch(() => undefined) // nobody did
      if (asked !== undefined && asked.mtimeMs > this.#crowdedAt) {
        this.#crowdedAt = Date.now()
        const { limit } = await this.#measure()
        await this.makeFree(limit * (1 - LOW))
      }
      const { limit = 0, free = 0 } = this.#measured ?? {}
      const { bavail, bsize } = await statfs(this.#parts.dir)
      if (isTime || free - bavail * bsize > limit * MEASURED_AGAIN_MIN) this.#begin()
    } catch (error) {
      this.#warn('the cache cannot be measured', error)
    }
  }

  /** That the disk takes nothing, not even a cache's folder, was said. */
  #warn(what: string, error: unknown): void {
    if (!isRefusal(error) && systemCode(error) !== 'ENOENT') this.#parts.warn(`${what}: ${describe(error)}`)
  }

  /** What the cache has and may have. @throws what the system throws */
  async #measure(): Promise<Measured> {
    const { dir, locks } = this.#parts
    const before = this.#written
    const now = performance.now()
    if (this.#rest === undefined || now > this.#rest.until) {
      const bytes = await restOf(dir, locks)
      const until = now + Math.max(REST_AGAIN_MIN_MS, (performance.now() - now) * REST_AGAIN_TIMES)
      this.#rest = { until, bytes }
    }
    const devices = (await devicesIn(dir, new Set(), locks)).reduce((sum, { bytes }) => sum + bytes, 0)
    const { bavail, blocks, bsize } = await statfs(dir)
    const used = this.#rest.bytes + devices
    const free = bavail * bsize
    const measured = { used, free, limit: allowed(this.#limits, { used, free, total: blocks * bsize }) }
    this.#measured = measured
    this.#written -= before // what was admitted meanwhile may not have been written when it was looked at
    return measured
  }

  /**
   * Takes back so many bytes, the least recently used first; less where the rest is in use.
   * @returns how many
   * @throws what the system throws
   */
  async makeFree(goal: number): Promise<number> {
    const { dir, locks } = this.#parts
    const [pinned, others] = await Promise.all([this.#parts.pinned(), this.#parts.others()])
    const own = new Set([...this.#devices].map(({ name }) => name))
    const found: (Goes | Piece)[] = [...others, ...(await devicesIn(dir, own.union(pinned), locks))]
    for (const device of this.#devices) {
      device.collect()
      if (device.refetchable && !pinned.has(device.name)) found.push(...(await device.pieces()))
    }
    const candidates = found.sort((a, b) => a.at - b.at)
    let freed = 0
    for (let next = 0; freed < goal && next < candidates.length; ) {
      const batch: (Goes | Piece)[] = []
      for (let sum = freed; sum < goal && next < candidates.length; next++) {
        const candidate = candidates[next] as Goes | Piece // next is below the length
        batch.push(candidate)
        sum += candidate.bytes
      }
      freed += await this.#take(batch)
    }
    this.#freed += freed
    return freed
  }

  async #take(batch: readonly (Goes | Piece)[]): Promise<number> {
    const pieces = new Map<Device, Set<number>>()
    let freed = 0
    for (const each of batch) {
      if ('go' in each) freed += await each.go()
      else pieces.set(each.device, (pieces.get(each.device) ?? new Set()).add(each.piece))
    }
    for (const [device, some] of pieces) {
      // it may be closed meanwhile
      if (this.#devices.has(device)) freed += await device.takeBack(some)
    }
    return freed
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#round
  }
}
