// Proving to a registry who we are: challenges, access tokens, and when to ask for another.
//
// Credentials that are refused are passed over once, for what the keyring finds instead. A 401 says that they are wrong: they are
// forgotten. A 403 may pass, and programs may be reading with them: they are forgotten when others were accepted in their place.

import { isDeepStrictEqual } from 'node:util'

import { abortion, type Failure } from '../errors.ts'
import type { Challenge } from './challenge.ts'
import type { Keyring } from './credentials.ts'
import type { Credentials } from './login.ts'
import { type AccessToken, type Asking, askForToken, basic, type NoToken } from './token-service.ts'

/**
 * A host that asked for no credentials is asked only after this time again what it wants. Otherwise each of dozens of things that are
 * missing would cost a second request.
 */
const OPEN_MS = 60_000
/** Repositories of one host whose tokens are kept. */
const TOKENS_MAX = 1024

interface Token extends AccessToken {
  /** What it was made from; undefined: nothing, as anybody may. */
  credentials: Credentials | undefined
  /** The registry has not accepted it yet. If it refuses a fresh token, it would also refuse another one from the same credentials. */
  fresh: boolean
}

/** What an authority works with. */
export interface AuthorityOptions extends Asking {
  keyring: Keyring
  /** What a token for a repository must allow (distribution's token specification, "scope"). */
  scopes: (repository: string) => readonly string[]
  /** These were refused, and need not be kept. */
  forget: (repository: string, credentials: Credentials) => void
}

/**
 * open         the host has asked for nothing so far
 * anonymous    it has let us in as anybody
 * credentials  it has let us in with credentials
 * refused      it has not let us in
 */
export type Standing = 'open' | 'anonymous' | 'credentials' | 'refused'

/** Speaks for us to one registry host; never to another. */
export class Authority {
  readonly #options: AuthorityOptions
  readonly #tokens = new Map<string, Token>()
  readonly #flights = new Map<string, Promise<string | undefined>>()
  /** Credentials that were refused. They are passed over until others were accepted in their place, or were refused as well. */
  readonly #doubted = new Map<string, Credentials>()
  #challenge: Challenge | undefined
  #discovery: Promise<Challenge | undefined> | undefined
  /** On the clock of performance.now(): it wanted nothing when it was asked last. */
  #openUntil = Number.NEGATIVE_INFINITY

  constructor(options: AuthorityOptions) {
    this.#options = options
  }

  /** The Authorization to send with a request for `repository`: none before the registry has asked for one. */
  async authorization(repository: string, signal: AbortSignal | undefined): Promise<string | undefined> {
    if (this.#challenge === undefined) return undefined
    const token = this.#tokens.get(repository)
    if (token !== undefined && performance.now() < token.until) return token.authorization
    return await this.#renew(repository, signal)
  }

  /** Whether the host has asked who we are. */
  get challenged(): boolean {
    return this.#challenge !== undefined
  }

  /**
   * The challenge that `ask` finds, of a host that has sent none so far. Calls at the same time share one `ask`; after one that found
   * nothing, none is made for `OPEN_MS`. @throws Failure: what `ask` throws; aborted
   */
  async discover(
    ask: () => Promise<Challenge | undefined>,
    signal: AbortSignal | undefined,
  ): Promise<Challenge | undefined> {
    if (this.#challenge !== undefined || performance.now() < this.#openUntil) return undefined
    if (this.#discovery === undefined) {
      this.#discovery = ask()
        .then((found) => {
          if (found === undefined) this.#openUntil = performance.now() + OPEN_MS
          return found
        })
        .finally(() => (this.#discovery = undefined))
      this.#discovery.catch(() => {}) // whoever still waits for it is told
    }
    return await unlessAborted(this.#discovery, signal)
  }

  /** Whether the host lets us read `repository`, and as whom. */
  standing(repository: string): Standing {
    if (this.#challenge === undefined) return 'open'
    const token = this.#tokens.get(repository)
    if (token === undefined || token.fresh) return 'refused'
    return token.credentials === undefined ? 'anonymous' : 'credentials'
  }

  /** Whether a request for `repository` that carries `used` says nothing of who we are; false where that is not known any more. */
  isAnonymous(repository: string, used: string | undefined): boolean {
    if (used === undefined) return true
    const token = this.#tokens.get(repository)
    return token?.authorization === used && token.credentials === undefined
  }

  /** The registry answered a request that carried `used`, and did not refuse it. */
  accepted(repository: string, used: string | undefined): void {
    const token = this.#tokens.get(repository)
    if (token?.authorization !== used || !token?.fresh) return
    token.fresh = false
    const doubted = this.#doubted.get(repository)
    this.#doubted.delete(repository)
    if (doubted !== undefined) this.#options.forget(repository, doubted)
  }

  /**
   * The registry refused `used` (what a request carried) with 401 or 403: another Authorization, made from credentials read anew, or
   * undefined when there is none that could do better. Requests refused together cost one renewal.
   * @throws Failure denied, unavailable, timeout, aborted
   */
  async refused(
    repository: string,
    used: string | undefined,
    { status, challenge }: { status: number; challenge: Challenge | undefined },
    signal: AbortSignal | undefined,
  ): Promise<string | undefined> {
    if (challenge !== undefined) this.#challenge = challenge
    if (this.#challenge === undefined) return undefined
    const token = this.#tokens.get(repository)
    if (token !== undefined && token.authorization !== used) return token.authorization
    this.#tokens.delete(repository)
    const basic = this.#challenge.scheme === 'basic'
    const wrong = token !== undefined && (token.fresh || basic) ? token : undefined
    const renewed = await this.#renew(repository, signal, wrong && { credentials: wrong.credentials, status })
    // a token may do better another time; a wrong password does not
    if (renewed === undefined && token !== undefined && !(basic && status === 401) && !this.#tokens.has(repository)) {
      this.#tokens.set(repository, { ...token, fresh: false })
    }
    // the same password again would be refused again; a token is new each time
    return renewed === used ? undefined : renewed
  }

  async #renew(
    repository: string,
    signal: AbortSignal | undefined,
    refused?: { credentials: Credentials | undefined; status: number },
  ): Promise<string | undefined> {
    let flight = this.#flights.get(repository)
    if (flight === undefined) {
      flight = this.#obtain(repository, refused).finally(() => this.#flights.delete(repository))
      flight.catch(() => {}) // whoever still waits for it is told
      this.#flights.set(repository, flight)
    }
    return await unlessAborted(flight, signal)
  }

  async #obtain(
    repository: string,
    refused: { credentials: Credentials | undefined; status: number } | undefined,
  ): Promise<string | undefined> {
    const { host, keyring } = this.#options
    let last = refused
    let failure: Failure | undefined
    for (;;) {
      if (last !== undefined && !this.#passOver(repository, last)) break
      const credentials = await keyring.find(host, repository, this.#doubted.get(repository))
      if (last !== undefined && isDeepStrictEqual(credentials, last.credentials)) break
      const token = await this.#answer(repository, credentials)
      if (token === undefined) break
      if (!('refusal' in token)) {
        keep(this.#tokens, repository, token)
        return token.authorization
      }
      failure ??= token.refusal
      last = { credentials, status: token.status }
    }
    this.#doubted.delete(repository)
    // where the registry itself refused something, the caller tells of that
    if (failure !== undefined && refused === undefined) throw failure
    return undefined
  }

  /** @returns whether others may do better: not when some were passed over already */
  #passOver(
    repository: string,
    { credentials, status }: { credentials: Credentials | undefined; status: number },
  ): boolean {
    if (credentials !== undefined && status !== 403) this.#options.forget(repository, credentials)
    if (this.#doubted.has(repository)) return false
    if (credentials !== undefined) keep(this.#doubted, repository, credentials)
    return true
  }

  async #answer(repository: string, credentials: Credentials | undefined): Promise<Token | NoToken | undefined> {
    const challenge = this.#challenge
    if (challenge?.scheme === 'bearer') {
      const token = await askForToken(this.#options, challenge, this.#options.scopes(repository), credentials)
      return 'refusal' in token ? token : { ...token, credentials, fresh: true }
    }
    if (credentials === undefined || 'identityToken' in credentials) return undefined
    return { authorization: basic(credentials), until: Number.POSITIVE_INFINITY, credentials, fresh: true }
  }
}

/** The oldest goes when there are too many. */
function keep<T>(map: Map<string, T>, repository: string, value: T): void {
  const oldest = map.keys().next().value
  if (map.size >= TOKENS_MAX && oldest !== undefined) map.delete(oldest)
  map.set(repository, value)
}

/** Waits for `flight`, which others may share: it goes on when one of them gives up. */
async function unlessAborted<T>(flight: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await flight
  if (signal.aborted) throw abortion(signal)
  let leave = () => {}
  const left = new Promise<never>((_, reject) => {
    leave = () => reject(abortion(signal))
    signal.addEventListener('abort', leave, { once: true })
  })
  try {
    return await Promise.race([flight, left])
  } finally {
    signal.removeEventListener('abort', leave)
  }
}
