// What trees have in common: who may have bytes of which, and where pieces of one are on others' devices, which is found off the main thread.
import fs, { type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Digest, hex } from '../image/digest.ts'
import { READY_MISSING } from '../tree/ready.ts'
import { AccessFile } from './access.ts'
import type { Locks } from './locks.ts'
import type { Look, Pieces } from './piece-worker.ts'
import { Provenance } from './provenance.ts'

/** Who reads waits for it: longer than that the registry is as good. */
const FIND_MAX_MS = 1_000

/** The layers of an image are opened within that time. */
const LOOK_AGAIN_MS = 2_000
/** Images that are opened within that time. */
const LOOKS_MAX = 64
const NOTHING: Look = { older: false, any: false }

/** The same folder holds piece-worker.ts in a checkout and piece-worker.js in the package. */
const WORKER = new URL(import.meta.url.endsWith('.ts') ? './piece-worker.ts' : './piece-worker.js', import.meta.url)
  .href

/** What pieces are looked for. */
export interface WantedPieces {
  tree: Digest
  /** Which a layer of it is kept under. */
  layer: Digest
  /** Whose image it is, as Giver has it. */
  repository: string
}

/** What of a device says what it has. */
type States = { states(): Promise<Uint8Array> }

/** Threads that run functions of modules, those that build trees: they are there when a tree was built just now. */
export interface Threads {
  runHere(module: string, name: string, task: object): Promise<unknown>
}

export class Reuse {
  readonly #cache: string
  readonly #locks: Locks
  readonly #threads: Threads
  /** By repository. */
  readonly #looks = new Map<string, { at: number; look: Promise<Look> }>()

  /** @param cache its folder */
  constructor(cache: string, locks: Locks, threads: Threads) {
    this.#cache = cache
    this.#locks = locks
    this.#threads = threads
  }

  /** Where the bytes of a tree come from that is open. @param layer which a layer of it is kept under */
  provenance(tree: Digest, layer: Digest, device: States): Provenance {
    return new Provenance({
      folder: this.#folder(hex(tree)),
      locks: this.#locks,
      layer,
      states: () => device.states(),
      kept: () => this.#looks.clear(),
    })
  }

  /** Who may see what is here of a tree. */
  access(tree: Digest): AccessFile {
    return new AccessFile(this.#folder(hex(tree)), this.#locks)
  }

  /** Whether an image of this repository is here already, so that most of another is here, too. False where that is not known in time. */
  async hasImage(repository: string): Promise<boolean> {
    return (await this.#look(repository)).older
  }

  /** Asked once for the layers of an image; who cannot be asked knows of nothing. */
  #look(repository: string): Promise<Look> {
    const now = performance.now()
    const known = this.#looks.get(repository)
    if (known !== undefined && now - known.at < LOOK_AGAIN_MS) return known.look
    const look = this.#lookAnew(repository).catch(() => NOTHING)
    if (this.#looks.size >= LOOKS_MAX) this.#looks.clear()
    this.#looks.set(repository, { at: now, look })
    return look
  }

  /** @throws what the system or the thread throws */
  async #lookAnew(repository: string): Promise<Look> {
    // threads of an agent that starts are not there yet, and what is fetched first waits for this
    const trees = await fs.readdir(join(this.#cache, 'trees'))
    if (trees.length === 0) return NOTHING
    const found = await this.#ask('look', { cache: this.#cache, repository })
    return (found ?? NOTHING) as Look // what the worker's function of that name returns
  }

  /**
   * Where pieces of a tree are that is open, on devices of others whose bytes an image of its repository may have. Undefined: nothing was
   * found in time, or nothing is missing.
   * @throws what keeps it from looking
   */
  async find(wanted: WantedPieces, device: States): Promise<Pieces | undefined> {
    const { tree, layer, repository } = wanted
    if (!(await device.states()).includes(READY_MISSING)) return undefined
    // threads that build this image's other layers are not waited for in vain
    if (!(await this.#look(repository)).any) return undefined
    const task = { cache: this.#cache, tree: hex(tree), layer: hex(layer), repository }
    return (await this.#ask('find', task)) as Pieces | undefined // what the worker's function of that name returns
  }

  /** Undefined: there was no answer in time. */
  async #ask(name: 'find' | 'look', task: object): Promise<unknown> {
    const late = new AbortController()
    const asked = this.#threads.runHere(WORKER, name, task)
    try {
      // who comes too late goes on: a thread that is ended takes what is warm in it along
      return await Promise.race([asked, sleep(FIND_MAX_MS, undefined, { signal: late.signal, ref: false })])
    } finally {
      asked.catch(() => {}) // nobody is there to hear of it
      late.abort()
    }
  }

  /** The device of a tree, to be read, whoever else uses it. The caller closes it. @param tree the name of its folder @throws what the system throws */
  open(tree: string): Promise<FileHandle> {
    return fs.open(join(this.#folder(tree), 'device'), 'r')
  }

  #folder(tree: string): string {
    return join(this.#cache, 'trees', tree)
  }
}
