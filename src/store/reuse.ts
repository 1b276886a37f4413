// What trees have in common: who may have bytes of which, and where pieces of one are on others' devices, which is found off the main thread.
import fs, { type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import { type Digest, hex } from '../image/digest.ts'
import { READY_MISSING } from '../tree/ready.ts'
import type { Locks } from './locks.ts'
import type { Pieces, PieceTask } from './piece-worker.ts'
import { Provenance } from './provenance.ts'

/** The layers of an image are opened one soon after another; then the thread leaves. */
const IDLE_MS = 5_000
/** Images have at most 1024 layers; whoever comes beyond that fetches. */
const QUEUE_MAX = 1024
/** Tables of numbers are beside the heap; a list of trees is all that is on it. */
const HEAP_MAX_MB = 64
/** Who reads waits for it: longer than that the registry is as good. */
const FIND_MAX_MS = 1_000

/** The same folder holds piece-worker.ts in a checkout and piece-worker.js in the package. */
const WORKER = new URL(import.meta.url.endsWith('.ts') ? './piece-worker.ts' : './piece-worker.js', import.meta.url)

/** What pieces are looked for. */
export interface WantedPieces {
  tree: Digest
  /** Which a layer of it is kept under. */
  layer: Digest
  /** Whose image it is, as Giver has it. */
  repository: string
}

type Task = PieceTask | Pick<PieceTask, 'cache' | 'repository'>

/** What of a device says what it has. */
type States = { states(): Promise<Uint8Array> }

export class Reuse {
  readonly #cache: string
  readonly #locks: Locks
  readonly #threads: Piscina<Task, boolean | Pieces | undefined>

  /** @param cache its folder */
  constructor(cache: string, locks: Locks) {
    this.#cache = cache
    this.#locks = locks
    this.#threads = new Piscina<Task, boolean | Pieces | undefined>({
      filename: fileURLToPath(WORKER),
      minThreads: 0,
      maxThreads: 1,
      maxQueue: QUEUE_MAX,
      idleTimeout: IDLE_MS,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MAX_MB },
    })
  }

  /** Where the bytes of a tree come from that is open. @param layer which a layer of it is kept under */
  provenance(tree: Digest, layer: Digest, device: States): Provenance {
    return new Provenance({ folder: this.#folder(hex(tree)), locks: this.#locks, layer, states: () => device.states() })
  }

  /** Whether an image of this repository is here already, so that most of another is here, too. False where that is not known in time. */
  async hasImage(repository: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#ask('hasImage', { cache: this.#cache, repository }, signal).catch(() => undefined)) === true // as well as unknown
  }

  /**
   * Where pieces of a tree are that is open, on devices of others whose bytes an image of its repository may have. Undefined: nothing was
   * found in time, or nothing is missing.
   * @throws what keeps it from looking
   */
  async find(wanted: WantedPieces, device: States, signal: AbortSignal): Promise<Pieces | undefined> {
    const { tree, layer, repository } = wanted
    if (!(await device.states()).includes(READY_MISSING)) return undefined
    const task = { cache: this.#cache, tree: hex(tree), layer: hex(layer), repository }
    return (await this.#ask('find', task, signal)) as Pieces | undefined // what the worker's function of that name returns
  }

  /** Undefined: there was no answer in time. */
  async #ask(name: 'find' | 'hasImage', task: Task, signal: AbortSignal): Promise<boolean | Pieces | undefined> {
    const stop = AbortSignal.any([signal, AbortSignal.timeout(FIND_MAX_MS)])
    try {
      return await this.#threads.run(task, { name, signal: stop })
    } catch (error) {
      if (stop.aborted) return undefined
      throw error
    }
  }

  /** The device of a tree, to be read, whoever else uses it. The caller closes it. @param tree the name of its folder @throws what the system throws */
  open(tree: string): Promise<FileHandle> {
    return fs.open(join(this.#folder(tree), 'device'), 'r')
  }

  async close(): Promise<void> {
    await this.#threads.destroy()
  }

  #folder(tree: string): string {
    return join(this.#cache, 'trees', tree)
  }
}
