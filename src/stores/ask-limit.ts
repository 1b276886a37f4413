// How often a user may have the store ask for what it does not know: each such lookup may cost requests to a registry of the user's
// choice, with the agent's credentials. Root's engines ask as they like. Where a store is closed nobody else gets here at all.
//
// A bucket of tokens for each user, and one for all of them together, since a user may have thousands of user IDs to spend.

/** A pull asks once for its image and once for each layer; images have at most 127. */
export const ASK_BURST = 200
/** After that many, a user gets one more token each time this many milliseconds have passed. */
export const ASK_EVERY_MS = 1_000
/** All users together have this many times the tokens of one user. */
const USERS = 10
/**
 * Buckets that are kept. While one bucket fills up, all users together can take half as many tokens, so at least half of these buckets are
 * full: each search for full ones frees many.
 */
const KEPT_MAX = 2 * (2 * ASK_BURST * USERS)

export const ROOT_UID = 0

class Bucket {
  #tokens: number
  #at: number
  readonly #burst: number
  readonly #everyMs: number
  /** Whether the log has said that this bucket is empty, since it was last full. */
  isTold = false

  constructor(burst: number, everyMs: number, now: number) {
    this.#tokens = burst
    this.#at = now
    this.#burst = burst
    this.#everyMs = everyMs
  }

  get isFull(): boolean {
    return this.#tokens >= this.#burst
  }

  get isEmpty(): boolean {
    return this.#tokens < 1
  }

  refill(now: number): void {
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) / this.#everyMs)
    this.#at = now
    if (this.isFull) this.isTold = false
  }

  take(): void {
    this.#tokens--
  }
}

export class AskLimit {
  readonly #log: (message: string) => void
  readonly #now: () => number
  readonly #all: Bucket
  readonly #users = new Map<number, Bucket>()

  /** @param now milliseconds */
  constructor(log: (message: string) => void, now: () => number) {
    this.#log = log
    this.#now = now
    this.#all = new Bucket(ASK_BURST * USERS, ASK_EVERY_MS / USERS, now())
  }

  /** Whether this user may ask once more; that counts. */
  takes(uid: number): boolean {
    if (uid === ROOT_UID) return true
    const now = this.#now()
    this.#all.refill(now)
    if (this.#all.isEmpty) return this.#refuse(this.#all, 'users other than root ask')
    const own = this.#bucketOf(uid, now)
    if (own.isEmpty) return this.#refuse(own, `user ${uid} asks`)
    this.#all.take()
    own.take()
    return true
  }

  #refuse(empty: Bucket, who: string): false {
    if (!empty.isTold) this.#log(`${who} for too many layers: what is not known yet is left to the engine for a while`)
    empty.isTold = true
    return false
  }

  #bucketOf(uid: number, now: number): Bucket {
    const known = this.#users.get(uid)
    known?.refill(now)
    if (known !== undefined) return known
    if (this.#users.size >= KEPT_MAX) this.#forgetFull(now)
    const made = new Bucket(ASK_BURST, ASK_EVERY_MS, now)
    this.#users.set(uid, made)
    return made
  }

  #forgetFull(now: number): void {
    for (const [uid, bucket] of this.#users) {
      bucket.refill(now)
      if (bucket.isFull) this.#users.delete(uid)
    }
  }
}
