// Proving to a registry who we are: challenges, access tokens, and when to ask for another.
//
// Credentials that are refused are passed over once, for what the keyring finds instead. A 401 says that they are wrong: they are
// forgotten. A 403 may pass, and programs may be reading with them: they are forgotten when others were accepted in their place.
import { isDeepStrictEqual } from 'node:util'
import { Failure } from '../errors.ts'
import type { Priority } from '../image/blob.ts'
import { readAll } from './body.ts'
import type { Client } from './client.ts'
import type { Credentials, Keyring, Login } from './credentials.ts'
import { abortion } from './gate.ts'
import { isOffLimits } from './off-limits.ts'
import { passing, retry, retryAfterMs } from './retry.ts'
import type { Trust } from './trust.ts'

/** What a registry wants to see (RFC 9110 11.6.1, distribution's token specification). */
export type Challenge = { scheme: 'basic' } | { scheme: 'bearer'; realm: string; service: string | undefined }

const CHALLENGE_MAX_LENGTH = 4096
const TOKEN_ANSWER_MAX_BYTES = 1 << 20
/** The specification's default where a token service names no lifetime. */
const TOKEN_LIFETIME_S = 60
/** A token is renewed that long before its end, or a tenth of its life before, whichever is shorter. */
const TOKEN_MARGIN_MS = 10_000
/** A host that wants to see nothing is asked again after that: things that are missing are asked for in dozens. */
const OPEN_MS = 60_000
/** Repositories of one host whose tokens are kept. */
const TOKENS_MAX = 1024

/** A WWW-Authenticate header's challenge that we can answer; bearer before basic. */
export function parseChallenge(header: string | undefined): Challenge | undefined {
  const text = (header ?? '').slice(0, CHALLENGE_MAX_LENGTH)
  const found: { scheme: string; parameters: Map<string, string> }[] = []
  // a token with "=" is a parameter of the scheme before it; one without begins a challenge
  const part = /[\s,]*([!#$%&'*+.^_`|~\w-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*)))?/y
  for (;;) {
    const match = part.exec(text)
    if (match === null) break
    const [, name = '', quoted, plain] = match
    const value = quoted?.replace(/\\(.)/g, '$1') ?? plain
    if (value === undefined) found.push({ scheme: name.toLowerCase(), parameters: new Map() })
    else found.at(-1)?.parameters.set(name.toLowerCase(), value)
  }
  const bearer = found.find((each) => each.scheme === 'bearer' && each.parameters.get('realm'))
  if (bearer) {
    const { parameters } = bearer
    return { scheme: 'bearer', realm: parameters.get('realm') ?? '', service: parameters.get('service') }
  }
  return found.some((each) => each.scheme === 'basic') ? { scheme: 'basic' } : undefined
}

interface Token {
  authorization: string
  /** On the clock of performance.now(). */
  until: number
  /** What it was made from; undefined: nothing, as anybody may. */
  credentials: Credentials | undefined
  /** The registry has not accepted it yet. When it refuses a fresh one, it would refuse another one made from the same, too. */
  fresh: boolean
}

/** A token service's word that it gives none. */
interface NoToken {
  refusal: Failure
  status: number
}

/** What an authority works with. */
export interface AuthorityOptions {
  client: Client
  keyring: Keyring
  /** `host[:port]`, as auth files name it. */
  host: string
  insecure: boolean
  trust: (host: string) => Promise<Trust>
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
  /** Refused, and passed over until others are accepted in their place, or refused as well. */
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
   * What `ask` finds that the host wants to see, of a host that has not said so. Who asks together asks once, and nobody again soon
   * after there was nothing. @throws Failure: what `ask` throws; aborted
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
      this.#discovery.catch(() => {}) // who waits for it hears of it; perhaps nobody does any more
    }
    return await unlessAborted(this.#discovery, signal)
  }

  /** How we stand with the host, as to `repository`. */
  standing(repository: string): Standing {
    if (this.#challenge === undefined) return 'open'
    const token = this.#tokens.get(repository)
    if (token === undefined || token.fresh) return 'refused'
    return token.credentials === undefined ? 'anonymous' : 'credentials'
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
      flight.catch(() => {}) // who waits for it hears of it; perhaps nobody does any more
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
    // what the registry itself refused says more than what else was tried
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
    if (challenge?.scheme === 'bearer') return await this.#token(challenge, repository, credentials)
    if (credentials === undefined || 'identityToken' in credentials) return undefined
    return { authorization: basic(credentials), until: Number.POSITIVE_INFINITY, credentials, fresh: true }
  }

  async #token(
    challenge: Challenge & { scheme: 'bearer' },
    repository: string,
    credentials: Credentials | undefined,
  ): Promise<Token | NoToken> {
    const { client, host, insecure, trust } = this.#options
    const url = realm(challenge.realm, host, insecure)
    const scope = `repository:${repository}:pull`
    const { service } = challenge
    const parameters = new URLSearchParams({ ...(service === undefined ? {} : { service }), scope })
    const post = credentials !== undefined && 'identityToken' in credentials
    const headers: Record<string, string> = { accept: 'application/json' }
    if (post) {
      parameters.set('grant_type', 'refresh_token')
      parameters.set('client_id', 'lazylayer')
      parameters.set('refresh_token', credentials.identityToken)
      headers['content-type'] = 'application/x-www-form-urlencoded'
    } else {
      for (const [name, value] of parameters) url.searchParams.set(name, value)
      if (credentials !== undefined) headers.authorization = basic(credentials)
    }
    const query = {
      url,
      method: post ? ('POST' as const) : ('GET' as const),
      headers,
      ...(post ? { body: parameters.toString() } : {}),
      trust,
      priority: 'demand' as Priority,
      follow: false,
    }
    const ask = () =>
      client.send(query, async (answer) => {
        client.counters.tokens++
        if (answer.status === 429 || answer.status >= 500) {
          const failure = Failure.unavailable(`token service ${url.host}: status ${answer.status}`)
          throw passing(failure, retryAfterMs(answer.header('retry-after'), Date.now()))
        }
        const { status } = answer
        if (status !== 200) {
          const refused = refusal(url.host, status, host, credentials)
          // RFC 6749 5.2: a refresh token that is not valid gets 400
          if (status === 401 || status === 403 || (post && status === 400)) return { refusal: refused, status }
          throw refused
        }
        const bytes = await readAll(answer, TOKEN_ANSWER_MAX_BYTES, `the answer of token service ${url.host}`)
        const token = parseToken(Buffer.from(bytes).toString('utf8'), url.host, performance.now())
        return { ...token, credentials, fresh: true }
      })
    return await retry(ask, client.limits, undefined, () => client.counters.retries++)
  }
}

function refusal(service: string, status: number, host: string, credentials: Credentials | undefined): Failure {
  const who = credentials === undefined ? 'anonymous access' : 'the credentials'
  return Failure.denied(`token service ${service} refuses ${who} for ${host} with status ${status}`, {
    fix: `Log in with: podman login ${host}`,
  })
}

/** @throws Failure denied: a realm that would show credentials in the clear, or leads inside */
function realm(text: string, host: string, insecure: boolean): URL {
  const refuse = (why: string) => Failure.denied(`${host}: its token service is not used`, { why })
  if (!URL.canParse(text)) throw refuse('its realm is no URL')
  const url = new URL(text)
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && insecure)) throw refuse(`its realm is ${url.protocol}`)
  if (url.username !== '' || url.password !== '') throw refuse('its realm holds credentials')
  if (isOffLimits(url.hostname) && url.host !== host) {
    throw refuse(`its realm has the link-local or metadata address ${url.hostname}`)
  }
  return url
}

function parseToken(text: string, service: string, now: number): Pick<Token, 'authorization' | 'until'> {
  let raw: { token?: unknown; access_token?: unknown; expires_in?: unknown } | null
  try {
    raw = JSON.parse(text)
  } catch {
    throw Failure.unavailable(`token service ${service}: its answer is no JSON`)
  }
  const token = raw?.token || raw?.access_token
  // RFC 6750 2.1, and nothing that could end a header
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) {
    throw Failure.unavailable(`token service ${service}: its answer holds no token`)
  }
  const stated = raw?.expires_in
  const seconds = typeof stated === 'number' && stated > 0 ? stated : TOKEN_LIFETIME_S
  const life = seconds * 1000
  return { authorization: `Bearer ${token}`, until: now + life - Math.min(TOKEN_MARGIN_MS, life / 10) }
}

function basic(login: Login): string {
  return `Basic ${Buffer.from(`${login.username}:${login.password}`, 'utf8').toString('base64')}`
}

/** The oldest goes when there are too many. */
function keep<T>(map: Map<string, T>, repository: string, value: T): void {
  const oldest = map.keys().next().value
  if (map.size >= TOKENS_MAX && oldest !== undefined) map.delete(oldest)
  map.set(repository, value)
}

/** A flight that others share goes on when one of them gives up. */
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
