// Looks up the names of hosts. Where the name service itself does not answer, a host is where it was last: a certificate says whether it is
// the right one. That a name is no more is believed.
import { type LookupAddress, lookup } from 'node:dns'
import type { LookupFunction } from 'node:net'

/** Hosts whose addresses are remembered; redirects may name any number of them. */
const NAMES_MAX = 1024
/** What was heard so long ago may be anybody's by now. */
const HEARD_MAX_MS = 24 * 60 * 60_000

/** Errors of getaddrinfo(3) that say nothing of the name. */
const NO_SERVICE = new Set(['EAI_AGAIN', 'EAI_FAIL', 'EAI_SYSTEM', 'EAI_MEMORY', 'ETIMEOUT', 'ESERVFAIL'])

/** What the name service said last; shared by all connections of a client. */
export class Names {
  readonly #known = new Map<string, { found: LookupAddress[]; at: number }>()

  /**
   * Looks up as ever, with one of the addresses that `may` lets through.
   * @param refusal what to tell where there is none
   */
  lookup(may: (address: string) => boolean, refusal: (name: string, address: string) => Error): LookupFunction {
    return (name, options, callback) => {
      lookup(name, { ...options, all: true }, (error, found) => {
        const known = error === null ? this.#heard(name, found) : this.#recalled(name, error)
        if (known === undefined) return callback(error, [])
        const within = known.filter(({ address }) => may(address))
        const [first] = within
        if (first === undefined)
          return callback(refusal(name, known[0]?.address ?? 'no address') as NodeJS.ErrnoException, [])
        if (options.all === true) callback(null, within)
        else callback(null, first.address, first.family)
      })
    }
  }

  #heard(name: string, found: LookupAddress[]): LookupAddress[] {
    this.#known.delete(name)
    const [oldest] = this.#known.keys()
    if (this.#known.size >= NAMES_MAX && oldest !== undefined) this.#known.delete(oldest)
    this.#known.set(name, { found, at: performance.now() })
    return found
  }

  #recalled(name: string, error: NodeJS.ErrnoException): LookupAddress[] | undefined {
    const known = this.#known.get(name)
    const isRecent = known !== undefined && performance.now() - known.at < HEARD_MAX_MS
    return isRecent && NO_SERVICE.has(error.code ?? '') ? known.found : undefined
  }
}
