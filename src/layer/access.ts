// Shows a tree to those alone who have it. Of what is here only what a registry itself has given counts as an image's: the first one to open
// a tree fetches it anyway, and is asked for nothing more; for every other the registry gives a part that is chosen at random.
//
//   nothing is here               shown; what comes is this image's
//   all of it came to anybody     shown
//   all of it is this image's     shown
//   else                          a random part from its registry, with its credentials: shown, and remembered
//
// A tree that several have open has the bytes of all, so each of them has given a part, or the next one is not shown it.
import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { LimitEach } from '../limit.ts'
import { type AccessFile, isAlone, isSame, type Scope } from '../store/access.ts'
import type { Here } from '../store/provenance.ts'

/** So long a registry has for a part. */
const SHOW_MAX_MS = 10_000

/** Somebody who wants to see a tree. */
export interface Asking {
  tree: Digest
  /** Of the layer, in messages. */
  what: string
  scope: Scope
  file: AccessFile
  /** Whose bytes are here. */
  here(): Promise<Here>
  /** Gets a part from the registry, and compares it. @throws Failure: it did not come, or is another */
  show(signal: AbortSignal): Promise<void>
  /** It was shown before this process began. */
  isAgain: boolean
  /** The tree was made of an index that came for it. */
  isMade: boolean
  /** All of the layer's bytes came for it, and were right. */
  hasAll: boolean
}

interface Entered {
  readonly asking: Asking
  isShown: boolean
  holders: number
}

export interface AccessParts {
  log(message: string): void
  /** Aborts when the agent stops. */
  signal: AbortSignal
}

export class Access {
  readonly #parts: AccessParts
  readonly #open = new Map<Digest, Set<Entered>>()
  /** One after the other for a tree: each must know the others. */
  readonly #turns = new LimitEach<Digest>(1)

  constructor(parts: AccessParts) {
    this.#parts = parts
  }

  /**
   * Resolves when the tree may be shown, with what is called when it is shown no more.
   * @throws Failure denied, or what kept the registry from giving a part
   */
  async enter(asking: Asking): Promise<() => void> {
    const known = this.#find(asking)
    if (known !== undefined) return this.#hold(known)
    return await this.#turns.take(asking.tree, async () => this.#hold(await this.#enter(asking)), this.#parts.signal)
  }

  #hold(entered: Entered): () => void {
    const { tree } = entered.asking
    entered.holders++
    const all = this.#open.get(tree) ?? new Set()
    this.#open.set(tree, all.add(entered))
    return () => {
      if (--entered.holders > 0) return
      all.delete(entered)
      if (all.size === 0 && this.#open.get(tree) === all) this.#open.delete(tree)
    }
  }

  /** The same image has it open. */
  #find({ tree, scope }: Asking): Entered | undefined {
    return [...(this.#open.get(tree) ?? [])].find(({ asking }) => isSame(asking.scope, scope))
  }

  async #enter(asking: Asking): Promise<Entered> {
    const { tree, scope, file, isAgain } = asking
    const known = this.#find(asking)
    if (known !== undefined) return known
    const record = await file.read()
    const entered: Entered = { asking, isShown: record.shown.some((each) => isSame(each, scope)), holders: 0 }
    if (isAgain) {
      // with which credentials may be forgotten: it was shown with some
      const isIts = (each: Scope | undefined) => each?.repository === scope.repository
      entered.isShown = record.shown.some(isIts) || (isIts(record.first) && record.shown.length === 0)
      return entered
    }
    const others = [...(this.#open.get(tree) ?? [])]
    if (!entered.isShown && asking.hasAll) {
      await file.add(scope)
      entered.isShown = true
    }
    if (!entered.isShown) {
      const here = await asking.here()
      // of nothing that is stored the names of files are here, if somebody had credentials
      const isKnown = here === 'nothing' && record.first !== undefined && !asking.isMade
      const isTheirs = (here === 'private' || here === 'own' || isKnown) && !isAlone(record, scope, here === 'own')
      if (isTheirs || others.some((each) => !isAnybody(each.asking.scope))) await this.#show(entered)
      else if (here === 'nothing' && !isAnybody(scope)) await file.begin(scope)
    }
    // they will be shown what comes for this one
    if (!isAnybody(scope)) await Promise.all(others.map((each) => this.#showOther(each, asking)))
    return entered
  }

  /** @throws Failure */
  async #show(entered: Entered): Promise<void> {
    const { what, scope, file, show } = entered.asking
    try {
      await show(AbortSignal.any([this.#parts.signal, AbortSignal.timeout(SHOW_MAX_MS)]))
    } catch (cause) {
      if (!(cause instanceof Failure)) throw cause
      const code = cause.code === 'aborted' && !this.#parts.signal.aborted ? 'timeout' : cause.code
      throw new Failure(code, `${what} is here, and is not shown to ${scope.repository}`, {
        cause,
        why: `what others fetched of it is shown once its registry gives a part of it, with the credentials that there are: ${cause.message}`,
      })
    }
    await file.add(scope)
    entered.isShown = true
  }

  async #showOther(other: Entered, { what, scope }: Asking): Promise<void> {
    if (other.isShown) return
    try {
      await this.#show(other)
    } catch (cause) {
      if (this.#parts.signal.aborted) throw cause
      const { repository } = other.asking.scope
      const failure = Failure.denied(`${what} is not lazy for ${scope.repository}`, {
        cause,
        why: `${repository} shows a layer with the same files, and its registry does not give them`,
        fix: `Remove the image of ${repository}, or the containers that use it.`,
      })
      this.#parts.log(`${failure.message}: ${failure.why}`)
      throw failure
    }
  }
}

/** Whether what a registry gives to it, it gives to anybody. */
function isAnybody({ repository, credentials }: Scope): boolean {
  return credentials === '' && !repository.startsWith('oci:')
}
