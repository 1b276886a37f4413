// Looks at every image that containerd has, as it comes. containerd reuses a layer that it knows under a chain without asking, so an image
// may come that the snapshotter is asked nothing about, and that means something else by that chain than the image before it. Whoever has
// no right to the chain then loses it, and the other's layer takes its place.
//
// containerd tells of an image before it answers whoever made it. So whoever is to know all images that were there at some moment has a
// mark put behind what containerd tells by then, and waits until it comes back.
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, Failure } from '../errors.ts'
import { choosePlatform, type Platform } from '../image/manifest.ts'
import type { Layers } from '../layer/layers.ts'
import { mapLimited } from '../limit.ts'
import type { ImageChange, ImageSource, ImageTarget } from './image-events.ts'
import type { ImageFinder } from './image-finder.ts'
import type { PresentImage, PresentImages } from './present-images.ts'
import type { Pulls } from './pulls.ts'
import type { Replacements } from './replacements.ts'
import { saidLayers } from './said-layers.ts'

export interface ImageWatchParts {
  source: Pick<ImageSource, 'all' | 'changes' | 'mark'>
  /** Where what is seen is kept. */
  present: PresentImages
  finder: Pick<ImageFinder, 'manifestOf'>
  pulls: Pick<Pulls, 'open'>
  /** Of each name that this containerd asks by. */
  replacements: readonly Pick<Replacements, 'differs' | 'replace' | 'namespaces'>[]
  platform: Platform
  layers: Pick<Layers, 'plan'>
  signal: AbortSignal
  log(message: string): void
}

/** containerd may be started behind the agent, or again. */
const AGAIN_MIN_MS = 500
const AGAIN_MAX_MS = 5_000
/** The server answers only when it has something to say: until a mark comes back it may not have subscribed. */
const MARK_AGAIN_MS = 100
/** A manifest and a config each, from containerd's disk. */
const LOOKS_AT_ONCE = 8
/** A thousand images are looked at in some seconds after a start. */
const CAUGHT_UP_MS = 10_000

/** What is known of the changes of one connection. */
class Connection {
  readonly begun = Promise.withResolvers<void>()
  /** Whether all images of a namespace are known. */
  readonly listed = new Map<string, Promise<void>>()
  /** Names that something happened to while images are being listed. */
  readonly touched = new Set<string>()
  listing = 0
  readonly #marks = new Map<string, () => void>()
  readonly #waiting = new Set<(why: unknown) => void>()
  #ended: Failure | undefined

  /** What some work comes to, as long as the connection lasts. @throws Failure unavailable; what `work` throws */
  async during<T>(work: Promise<T>): Promise<T> {
    const { promise, reject } = Promise.withResolvers<never>()
    this.#waiting.add(reject)
    if (this.#ended !== undefined) reject(this.#ended)
    try {
      return await Promise.race([work, promise])
    } finally {
      this.#waiting.delete(reject)
    }
  }

  end(): void {
    this.#ended = Failure.unavailable('containerd does not tell of its images')
    for (const reject of this.#waiting) reject(this.#ended)
  }

  passed(mark: string): Promise<void> {
    return new Promise((resolve) => this.#marks.set(mark, resolve))
  }

  pass(mark: string): void {
    this.#marks.get(mark)?.()
    this.#marks.delete(mark)
  }
}

export class ImageWatch {
  readonly #parts: ImageWatchParts
  #connection = new Connection()
  #marks = 0
  /** Whether whoever answers has images, as far as is known: BuildKit gives no names. */
  #hasImages = true
  #hurry = () => {}

  constructor(parts: ImageWatchParts) {
    this.#parts = parts
  }

  /** Until `signal` aborts; never rejects. */
  async run(): Promise<void> {
    const { source, signal } = this.#parts
    for (let waitMs = AGAIN_MIN_MS; !signal.aborted; waitMs = Math.min(waitMs * 2, AGAIN_MAX_MS)) {
      const connection = this.#connection
      const over = new AbortController()
      try {
        const end = AbortSignal.any([signal, over.signal])
        void this.#begin(connection, end) // never rejects
        for await (const change of source.changes(end)) {
          this.#hasImages = true
          await this.#see(change, connection)
          waitMs = AGAIN_MIN_MS
        }
      } catch (error) {
        // otherwise it is away, which its clients are told
        this.#hasImages = !(error instanceof Failure && error.code === 'unsupported')
      }
      over.abort()
      this.#connection = new Connection()
      connection.end()
      await this.#pause(waitMs)
    }
  }

  /** Waits, as long as a client may be kept waiting, until all images are known that a namespace had by now. @throws Failure unavailable */
  async caughtUp(namespace: string): Promise<void> {
    const { signal } = this.#parts
    if (!this.#hasImages) return
    this.#hurry() // whoever asks for that is there
    const over = new AbortController()
    const late = sleep(CAUGHT_UP_MS, undefined, { signal: over.signal, ref: false }).then(() => {
      throw Failure.unavailable(`containerd has not told of its images for ${CAUGHT_UP_MS} ms`, {
        fix: 'Name its own socket with --containerd-address.',
      })
    })
    late.catch(() => {}) // it was in time
    const caughtUp = async () => {
      while (this.#hasImages) {
        const connection = this.#connection
        try {
          return await connection.during(this.#known(namespace, connection))
        } catch (error) {
          if (signal.aborted || connection === this.#connection) throw error
          over.signal.throwIfAborted()
        }
      }
    }
    try {
      await Promise.race([caughtUp(), late])
    } catch (cause) {
      throw cause instanceof Failure ? cause : Failure.unavailable('images of containerd are not known', { cause })
    } finally {
      over.abort()
    }
  }

  async #known(namespace: string, connection: Connection): Promise<void> {
    const { source } = this.#parts
    await connection.begun.promise
    await this.#list(namespace, connection)
    const mark = `${++this.#marks}`
    const passed = connection.passed(mark)
    await source.mark(mark)
    await passed
  }

  /** Lists what was there before, when what happens from now on is told of. Never rejects. */
  async #begin(connection: Connection, signal: AbortSignal): Promise<void> {
    const { source, replacements, log } = this.#parts
    const mark = `begin${++this.#marks}`
    void connection.passed(mark).then(connection.begun.resolve)
    const tell = async () => {
      for (let isBegun = false; !isBegun && !signal.aborted; ) {
        await source.mark(mark).catch(() => {}) // the changes end as well
        const begun = connection.begun.promise.then(() => true)
        isBegun = await Promise.race([begun, sleep(MARK_AGAIN_MS, false, { signal, ref: false }).catch(() => true)])
      }
    }
    await tell()
    if (signal.aborted) return
    const namespaces = new Set(replacements.flatMap((each) => [...each.namespaces()]))
    for (const namespace of namespaces) {
      await this.#list(namespace, connection).catch((error) => {
        log(`images of containerd are not looked at: ${describe(error)}`)
      })
    }
  }

  #list(namespace: string, connection: Connection): Promise<void> {
    const known = connection.listed.get(namespace)
    if (known !== undefined) return known
    const listing = this.#lookAtAll(namespace, connection)
    connection.listed.set(namespace, listing)
    listing.catch(() => connection.listed.delete(namespace)) // whoever waits is told; the next one tries again
    return listing
  }

  async #lookAtAll(namespace: string, connection: Connection): Promise<void> {
    const { source, present } = this.#parts
    connection.listing++
    try {
      const all = await source.all(namespace)
      const names = new Set(all.map(({ name }) => name))
      const isTouched = (name: string) => connection.touched.has(touchedKey(namespace, name))
      for (const name of present.namesIn(namespace))
        if (!names.has(name) && !isTouched(name)) present.drop(namespace, name)
      await mapLimited(all, LOOKS_AT_ONCE, async (target) => {
        if (!isTouched(target.name)) await this.#look(target, () => !isTouched(target.name))
      })
    } finally {
      if (--connection.listing === 0) connection.touched.clear()
    }
  }

  async #see(change: ImageChange, connection: Connection): Promise<void> {
    if (change.is === 'mark') {
      connection.pass(change.mark)
      return
    }
    const { namespace, name } = change.is === 'there' ? change.target : change
    if (connection.listing > 0) connection.touched.add(touchedKey(namespace, name))
    if (change.is === 'there') await this.#look(change.target, () => true)
    else this.#parts.present.drop(namespace, name)
  }

  /**
   * Costs no more than reading the manifest, unless it says otherwise of a layer that is shown.
   * @param isCurrent asked in the turn in which it is noted
   * @throws Failure unavailable, limit: it cannot be looked at now
   */
  async #look(target: ImageTarget, isCurrent: () => boolean): Promise<void> {
    const { namespace, name } = target
    const { present, replacements, pulls, log } = this.#parts
    const image = await this.#read(target)
    if (!isCurrent()) return
    present.put(namespace, name, image)
    if (image === undefined) return
    const concerned = replacements.filter((each) => each.differs(namespace, image.chain, image.said))
    if (concerned.length === 0) return
    try {
      const pulled = await pulls.open(namespace, image.digest, name)
      // a registry that brings nothing keeps no other image from being looked at
      for (const each of concerned) void each.replace(namespace, pulled, image.chain) // never rejects
    } catch (error) {
      log(`image ${image.digest}: ${describe(error)}`) // who is to stand on what it contradicts has that proven
    }
  }

  /** Undefined: it is none that could be served. @throws Failure unavailable */
  async #read({ namespace, digest }: ImageTarget): Promise<PresentImage | undefined> {
    const { finder, platform, layers, log } = this.#parts
    try {
      const found = await finder.manifestOf(namespace, digest, (index) => {
        try {
          return choosePlatform(index, platform, `image ${digest}`).digest
        } catch (error) {
          if (error instanceof Failure) return undefined // it is for other machines
          throw error
        }
      })
      if (found === undefined) return undefined
      const { manifest, chain } = found
      return { digest: found.digest, chain, said: saidLayers(manifest, layers.plan(manifest)) }
    } catch (error) {
      if (!(error instanceof Failure) || error.code === 'unavailable') throw error
      log(`image ${digest}: ${describe(error)}`)
      return undefined
    }
  }

  async #pause(ms: number): Promise<void> {
    const woken = new AbortController()
    this.#hurry = () => woken.abort()
    const signal = AbortSignal.any([this.#parts.signal, woken.signal])
    await sleep(ms, undefined, { signal, ref: false }).catch(() => {}) // then it is over, or wanted at once
    this.#hurry = () => {}
  }
}

function touchedKey(namespace: string, name: string): string {
  return `${namespace} ${name}`
}
