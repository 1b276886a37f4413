// A host, or one path of it, is out when it gives nothing. A read waits for it for a while, then fails; from then on all reads fail at
// once, until a probe finds that it gives bytes again. Without that each read would wait anew, and the kernel asks for a page several
// times before it gives up.
//
//   reads that wait ── nothing for so long ──▶ they fail, once ──▶ the next fail at once ── a probe succeeds ──▶ as before
//
// The whole host is out when it gave nothing to anybody meanwhile; a path alone when others went on.
import { describe, Failure } from '../errors.ts'
import type { Counters } from './client.ts'
import type { Limits } from './limits.ts'
import { Pulse } from './pulse.ts'
import { countRetry, isUnanswered, retry } from './retry.ts'

/** When nobody has asked for so long, its probes end and it is no longer out: the next read tries the host itself. */
const FORGOTTEN_MS = 60_000
/** A host may ask for a pause before the next request. It is probed after this time even if it asked for a longer one. */
const AFTER_MAX_MS = 30_000
/** So many paths of a host are remembered as out; beyond that the oldest is forgotten. */
const PATHS_MAX = 256
/** How often it is looked whether a host is silent, as a share of the patience. */
const LOOKS = 16

/** How long one read waits for a host that gives nothing, and how the host is probed after that. */
export interface Endurance {
  /** The repository and blob: they may be out while the rest of the host is not. */
  path: string
  /** A host that has given nothing for so long is given up. */
  patienceMs: number
  /** What refuses or fails is tried for at least so long. */
  bearMs: number
  signal: AbortSignal | undefined
  /** How much of it has come so far, over all attempts. */
  came(): number
  /** Reads a little of it. Resolves with whether the path, and whether the host, can be read again. */
  probe(signal: AbortSignal): Promise<{ path: boolean; host: boolean }>
}

interface Waiting {
  readonly endurance: Endurance
  /** When it was asked for, or an attempt that brought enough to call it a flow broke. */
  began: number
  /** The newest failure of an attempt, and the pause that it asks for. */
  last: Failure | undefined
  afterMs: number
  readonly stop: AbortController
}

interface Outage {
  readonly failure: Failure
  /** When somebody asked last. */
  asked: number
  readonly over: AbortController
}

export interface OutageParts {
  /** Names it in messages. */
  host: string
  limits: Limits
  counters: Counters
  log(message: string): void
}

/** The key of the whole host among the paths. */
const ALL = ''

export class Outages {
  readonly pulse: Pulse
  readonly #parts: OutageParts
  readonly #out = new Map<string, Outage>()
  readonly #waiting = new Set<Waiting>()
  #looking: NodeJS.Timeout | undefined

  constructor(parts: OutageParts) {
    this.#parts = parts
    this.pulse = new Pulse(parts.limits)
  }

  /** What is out now, and why, a line each. */
  now(): string[] {
    return [...this.#out].map(([key, { failure }]) => `${nameOf(this.#parts.host, key)}: ${describe(failure)}`)
  }

  /**
   * Runs `attempt` until it succeeds, fails for good, or the host or path is given up.
   * @throws Failure unavailable, timeout: given up, now or before; or what `attempt` throws
   */
  async bear<T>(endurance: Endurance, attempt: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { counters, limits } = this.#parts
    const known = this.#out.get(ALL) ?? this.#out.get(endurance.path)
    if (known !== undefined) {
      known.asked = performance.now()
      counters.failedAtOnce++
      throw known.failure
    }
    const waiting: Waiting = {
      endurance,
      began: performance.now(),
      last: undefined,
      afterMs: 0,
      stop: new AbortController(),
    }
    const ended = this.pulse.begin()
    this.#waiting.add(waiting)
    this.#look()
    const { signal: wish } = endurance
    const signal = wish === undefined ? waiting.stop.signal : AbortSignal.any([waiting.stop.signal, wish])
    let came = endurance.came()
    let triesBefore = 0
    const enough = (tries: number, failure: Failure, afterMs: number) => {
      waiting.last = failure
      waiting.afterMs = afterMs
      // a large blob may break now and then
      if (endurance.came() - came >= limits.windowBytes) {
        came = endurance.came()
        waiting.began = performance.now()
        triesBefore = tries
      }
      return tries - triesBefore >= limits.attempts && performance.now() - waiting.began >= endurance.bearMs
    }
    try {
      const value = await retry(
        () => attempt(signal),
        limits,
        signal,
        (failure) => countRetry(counters, failure),
        enough,
      )
      this.pulse.gave()
      this.#end(endurance.path)
      return value
    } catch (error) {
      // `enough` ended it, so the failure is the one that it was told of last
      if (error === waiting.last && !signal.aborted) this.#giveUp(waiting, waiting.last as Failure)
      throw error
    } finally {
      this.#waiting.delete(waiting)
      ended()
    }
  }

  /** While somebody waits, looks again and again whether the host has been silent for longer than he waits. */
  #look(): void {
    if (this.#looking !== undefined) return
    const least = Math.min(...[...this.#waiting].map(({ endurance }) => endurance.patienceMs))
    this.#looking = setInterval(
      () => {
        if (this.#waiting.size === 0) {
          clearInterval(this.#looking)
          this.#looking = undefined
          return
        }
        for (const waiting of [...this.#waiting]) {
          if (this.pulse.silentMs() < waiting.endurance.patienceMs || waiting.stop.signal.aborted) continue
          const seconds = Math.round(this.pulse.silentMs() / 100) / 10
          const cause = waiting.last
          const why = cause === undefined ? 'it accepts requests and does not answer' : describe(cause)
          const failure = Failure.timeout(`${this.#parts.host} has given nothing for ${seconds} s`, { why })
          waiting.stop.abort(failure)
          this.#declare(ALL, failure, waiting)
        }
      },
      Math.max(10, least / LOOKS),
    )
    this.#looking.unref()
  }

  #giveUp(waiting: Waiting, failure: Failure): void {
    const { began, endurance } = waiting
    // 1 ms: clocks are read one after the other
    const all = isUnanswered(failure) && this.pulse.silentMs() + 1 >= performance.now() - began
    this.#declare(all ? ALL : endurance.path, failure, waiting)
  }

  #declare(key: string, failure: Failure, { endurance, afterMs }: Waiting): void {
    if (this.#out.has(key)) return
    const { host, counters, log } = this.#parts
    const [oldest] = this.#out.keys()
    if (this.#out.size >= PATHS_MAX && oldest !== undefined) this.#end(oldest)
    const outage: Outage = { failure, asked: performance.now(), over: new AbortController() }
    this.#out.set(key, outage)
    counters.outages++
    log(`${nameOf(host, key)}: reads fail at once until it gives again: ${describe(failure)}`)
    // other reads of the host still wait until their own `bearMs` have passed
    if (key === ALL) for (const each of this.#waiting) this.#endLater(each, failure, outage.over.signal)
    void this.#probe(key, outage, endurance, afterMs) // never rejects
  }

  #endLater({ began, endurance, stop }: Waiting, failure: Failure, over: AbortSignal): void {
    const left = Math.max(0, began + endurance.bearMs - performance.now())
    const timer = setTimeout(() => stop.abort(failure), left)
    over.addEventListener('abort', () => clearTimeout(timer), { once: true })
  }

  async #probe(key: string, outage: Outage, { probe }: Endurance, afterMs: number): Promise<void> {
    const { probeMs, probeMaxMs } = this.#parts.limits
    const { signal } = outage.over
    // there is a pause before the first probe too: what the kernel asks again at once must fail at once
    let pause = probeMs
    let wait = Math.max(pause, Math.min(afterMs, AFTER_MAX_MS))
    for (; !signal.aborted; wait = pause = Math.min(pause * 2, probeMaxMs)) {
      await new Promise<void>((done) => setTimeout(done, wait).unref())
      if (performance.now() - outage.asked > FORGOTTEN_MS) break
      const gives = await probe(signal).catch(() => ({ path: false, host: false })) // the next one may succeed
      if (key === ALL ? gives.host : gives.path) break
    }
    if (this.#out.get(key) !== outage) return
    this.#parts.log(`${nameOf(this.#parts.host, key)}: is read again`)
    this.#end(key)
  }

  /** A read or a probe of this path succeeded: neither the path nor the host is out. */
  #end(path: string): void {
    for (const key of [ALL, path]) {
      this.#out.get(key)?.over.abort()
      this.#out.delete(key)
    }
  }

  /** Ends all probes. */
  close(): void {
    for (const key of [...this.#out.keys()]) this.#end(key)
    clearInterval(this.#looking)
  }
}

function nameOf(host: string, key: string): string {
  return key === ALL ? host : `${host}: ${key}`
}
