// Who wants to see a layer, and what of it shows that they have it (access.ts).
import type { CodecPool } from '../codec/pool.ts'
import type { Source, Unit } from '../format/format.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Scope } from '../store/access.ts'
import type { Reuse } from '../store/reuse.ts'
import type { Store } from '../store/store.ts'
import { Access, type AccessParts } from './access.ts'
import type { Examiner, LayerLease, OpenLayer } from './layer.ts'
import type { Lease } from './leases.ts'
import type { Opened } from './opened-layer.ts'
import { showBytes, showChunks } from './random-part.ts'

export interface Viewer {
  /** Whose image it is, as a Giver has it. */
  repository: string
  /** It was shown before this process began. */
  isAgain: boolean
  /** Whether others' bytes are here that no device tells of. */
  isHere: boolean
  /** Set when the layer was made of what came for this viewer. */
  isMade: boolean
  /** As Asking.hasAll. */
  hasAll: boolean
  /** As Asking.show. */
  show(layer: OpenLayer, signal: AbortSignal): Promise<void>
}

export interface ViewerParts extends AccessParts {
  store: Store
  codecs: CodecPool
  examiner: Examiner
  reuse: Reuse
  /** A hash of what images of a repository are asked for with; '': nothing. @throws Failure */
  credentials(repository: string): Promise<string>
}

export class Viewers {
  readonly #parts: ViewerParts
  readonly #access: Access

  constructor(parts: ViewerParts) {
    this.#parts = parts
    this.#access = new Access(parts)
  }

  /** Of a unit. */
  ofUnit(unit: Unit, source: Source, isAgain: boolean): Viewer {
    const { store } = this.#parts
    // what shows a tree of several layers is kept for its name, and its bytes are no file's
    const hasChunks = ({ digest }: { digest: Descriptor['digest'] }) =>
      unit.layers.length === 1 || digest !== unit.shown.digest
    return {
      repository: source.repository,
      isAgain,
      isHere: unit.blobs.some((each) => hasChunks(each) && store.wholes.has(each.digest)),
      isMade: false,
      hasAll: false,
      show: ({ chunks }, signal) => showChunks(chunks, (of) => source.blob(of), this.#parts, signal),
    }
  }

  /** Of a layer that is served from its whole tar. @param isKnown whether its tree is here */
  ofWhole(blob: StoredBlob, repository: string, isAgain: boolean, isKnown: boolean): Viewer {
    const { store, examiner } = this.#parts
    const { digest } = blob
    const isHere = isKnown || store.wholes.has(digest)
    return {
      repository,
      isAgain,
      isHere,
      isMade: false,
      hasAll: !isHere, // what is fetched now comes from its own registry
      show: async (_, signal) => {
        await using file = store.wholes.has(digest)
          ? await store.wholes.openUnchecked(digest)
          : await examiner.blob(blob)
        await showBytes(blob, file, signal)
      },
    }
  }

  /** With what images of its repository are asked for now; of what was shown before nobody is asked. @throws Failure */
  async scope({ repository, isAgain }: Viewer): Promise<Scope> {
    return { repository, credentials: isAgain ? '' : await this.#parts.credentials(repository) }
  }

  /** Resolves when it may be shown. @returns what ends that @throws Failure as Access.enter */
  async enter({ layer, provenance }: Opened, viewer: Viewer, scope: Scope): Promise<() => void> {
    const { descriptor, tree } = layer
    return await this.#access.enter({
      tree,
      what: `layer ${descriptor.digest}`,
      scope,
      file: this.#parts.reuse.access(tree),
      here: async () => (viewer.isHere ? 'private' : await provenance.here(viewer.repository)),
      show: (signal) => viewer.show(layer, signal),
      isAgain: viewer.isAgain,
      isMade: viewer.isMade,
      hasAll: viewer.hasAll,
    })
  }
}

/** A layer that is shown. @param leave is called when the last of those that come of this one is closed */
export function held(layer: OpenLayer, lease: Lease<unknown>, leave: () => void): LayerLease {
  let holders = 0
  const hold = (of: Lease<unknown>): LayerLease => {
    holders++
    let isClosed = false
    const close = async () => {
      if (!isClosed && --holders === 0) leave()
      isClosed = true
      await of.close()
    }
    return { ...layer, again: () => hold(of.again()), close, [Symbol.asyncDispose]: close }
  }
  return hold(lease)
}
