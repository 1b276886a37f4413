// Who may write to a device, and who may take chunks back of it: any number of writers, or one who takes back, over all processes that
// share the cache. It is an flock on the device: shared while this process writes or has it mounted, exclusive while it takes back.
//
// A chunk that is taken back while a worker writes it, or reads it back, would be marked verified over a hole.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Disk } from './disk.ts'
import { type Locks, lock } from './locks.ts'

/** Writers are codec workers, which have a chunk or two; a worker that takes longer has others to wait for. */
const IDLE_WAIT_MS = 1_000
/** Another process that writes is not waited for: it makes room itself when it must. */
const TRIES = 20
const TRY_AGAIN_MS = 5
/** Chunks come one shortly after the other: the lock is kept between them, for less than another process tries to get it. */
const KEPT_MS = 20

export class DeviceLock {
  readonly #locks: Locks
  readonly #disk: Disk | undefined
  readonly #fd: number
  readonly #name: string
  #users = 0
  #holds = 0
  /** While the lock is shared, or is about to be. */
  #shared: Promise<void> | undefined
  /** Ends when nothing is taken back any more. */
  #taking: Promise<void> | undefined
  #idle: (() => void) | undefined
  /** Ends the lock that nobody uses. */
  #ending: NodeJS.Timeout | undefined

  /**
   * @param fd of the device, for as long as this is used
   * @param disk without it, nothing is ever taken back, by anybody: once it is shared, the lock stays so
   * @param name of the device, in messages
   */
  constructor(locks: Locks, disk: Disk | undefined, fd: number, name: string) {
    this.#locks = locks
    this.#disk = disk
    this.#fd = fd
    this.#name = name
  }

  /** Runs `work`, which writes to the device or vouches for what it reads there. @throws Failure timeout; what `work` throws */
  async write<T>(work: () => Promise<T>): Promise<T> {
    await this.#enter()
    try {
      return await work()
    } finally {
      this.#leave()
    }
  }

  /** Nothing is taken back until the function is called that it resolves with. @throws Failure timeout */
  async hold(): Promise<() => void> {
    await this.#enter()
    this.#holds++
    let held = true
    return () => {
      if (!held) return
      held = false
      this.#holds--
      this.#leave()
    }
  }

  /** Runs `work` while nobody writes, in no process. @returns undefined: somebody does, or has it mounted. @throws what `work` throws */
  async take<T>(work: () => Promise<T>): Promise<T | undefined> {
    const disk = this.#disk
    if (disk === undefined || this.#holds > 0 || this.#taking !== undefined) return undefined
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#taking = promise
    try {
      if (!(await this.#whenIdle())) return undefined
      this.#end() // an exclusive one cannot be had beside it
      for (let tries = 0; !this.#locks.tryLock(this.#fd, true); tries++) {
        if (tries === TRIES) return undefined
        await sleep(TRY_AGAIN_MS)
      }
      try {
        return await work()
      } finally {
        disk.unlock(this.#fd)
      }
    } finally {
      this.#taking = undefined
      resolve()
    }
  }

  /** Resolves when nothing is being taken back: the device may be closed. It is not locked any more. */
  async settled(): Promise<void> {
    while (this.#taking !== undefined) await this.#taking
    this.#end()
  }

  async #enter(): Promise<void> {
    while (this.#taking !== undefined) await this.#taking // and at once, before anybody begins to take again
    this.#users++
    try {
      this.#shared ??= this.#share()
      await this.#shared
    } catch (error) {
      this.#shared = undefined
      this.#leave()
      throw error
    }
  }

  async #share(): Promise<void> {
    if (!this.#locks.tryLock(this.#fd, false)) await lock(this.#locks, this.#fd, false, this.#name)
  }

  #leave(): void {
    if (--this.#users > 0) return
    if (this.#disk !== undefined) this.#ending ??= setTimeout(() => this.#end(), KEPT_MS).unref()
    this.#idle?.()
  }

  /** Lets go of the lock, unless somebody uses it. */
  #end(): void {
    clearTimeout(this.#ending)
    this.#ending = undefined
    if (this.#users > 0 || this.#shared === undefined || this.#disk === undefined) return
    this.#shared = undefined
    this.#disk.unlock(this.#fd)
  }

  /** @returns false: they go on and on */
  async #whenIdle(): Promise<boolean> {
    if (this.#users === 0) return true
    const idle = new Promise<void>((resolve) => {
      this.#idle = resolve
    })
    await Promise.race([idle, sleep(IDLE_WAIT_MS, undefined, { ref: false })])
    this.#idle = undefined
    return this.#users === 0
  }
}
