// One repository at one host: requests with authorization, renewed when refused, remembered redirects, and retries.
import { Failure } from '../errors.ts'
import type { Priority } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { LimitEach } from '../limit.ts'
import type { Authority } from './auth.ts'
import type { Redirects, SeveralRanges, Target } from './blob-habits.ts'
import { type Challenge, parseChallenge } from './challenge.ts'
import type { Answer, Client } from './client.ts'
import type { Hedge } from './hedge.ts'
import type { Endpoint } from './hosts.ts'
import type { Outages } from './outages.ts'
import type { AskedFor } from './pulse.ts'
import { isRefusal, notLetIn, refusalOf } from './refusal.ts'
import type { InRow } from './retry.ts'
import { countRetry, isPassing, isUnanswered, retry } from './retry.ts'
import { speaksHttp } from './tls-failure.ts'
import type { Trust } from './trust.ts'

/** What is known of a host, shared by its repositories. */
export interface Host {
  readonly authority: Authority
  readonly trust: (host: string) => Promise<Trust>
  /** Set by the first answer; an insecure host may speak only HTTP. */
  scheme: 'https:' | 'http:' | undefined
  /** When HTTPS is tried again all the same (performance.now). */
  schemeUntil: number
  readonly outages: Outages
  readonly hedge: Hedge
  /** A blob is sent whole once at a time, whichever repository of the host it is asked of, also as a mirror of several registries. */
  readonly streams: LimitEach<Digest>
  readonly ignoredRanges: InRow
  readonly severalRanges: SeveralRanges
  readonly redirects: Redirects
}

/** A document or blob, and how it is wanted. */
export interface Wanted {
  /** Behind /v2/REPOSITORY/. */
  path: string
  /** Named by its digest: what a redirect leads to may be asked again without the registry. A tag may have moved by then. */
  lasting: boolean
  /** Names the thing in messages. */
  what: string
  /** Asked for at each try, as a resumed transfer wants less. */
  headers: () => Record<string, string>
  /** For bytes that programs wait for; undefined: a few tries, each within `totalMs`. */
  endures?: Endures
  priority: Priority
  signal: AbortSignal | undefined
  /** Over a connection of its own. */
  aside?: boolean
}

/** How long a read of bytes waits for a host that gives nothing, and what else it may do then. */
export interface Endures {
  /** How many hosts may have them: they share the patience. */
  hosts: number
  /** No other is left to ask. */
  last: boolean
  /** How much of it has come so far. */
  came: () => number
  /** Where nothing comes it may be asked for on a second connection as well. Whoever takes what comes calls `claim` before. */
  hedged: boolean
  /** A range of the same bytes that a host must bring before it is believed again: as much as a flow takes, if there is so much. */
  probe: (windowBytes: number) => { headers: Record<string, string>; bytes: number }
}

/** A content answer. */
export interface Given extends Answer {
  /** Whether anybody gets it who asks: neither this request nor the one that led to it said who we are. */
  readonly anonymous: boolean
}

/** So long a host that did not answer over TLS, and did over HTTP, is asked over HTTP alone. */
const UNANSWERED_MS = 5 * 60_000
/** What a storage answers to a signed URL whose time has passed. */
const EXPIRED = new Set([400, 401, 403, 404, 410])
/** A request may be refused without a token or with an old one, with a new one, with one from other credentials, and with one that
 * another request got meanwhile. */
const REFUSALS_MAX = 4

/** `missing`: the registry said 404 to somebody whom it does not know; it may show the thing to others. */
type Outcome<T> = { value: T } | { expired: true } | { refused: Answer; missing?: Error }

/** Knows the way to its documents and blobs, and goes it again when it has changed. */
export class Repository {
  readonly endpoint: Endpoint
  readonly host: Host
  readonly #client: Client

  constructor(endpoint: Endpoint, host: Host, client: Client) {
    this.endpoint = endpoint
    this.host = host
    this.#client = client
  }

  /** Who is really asked. */
  get server(): string {
    return serverOf(this.endpoint)
  }

  /**
   * Asks until there is a content answer (200 or 206) and hands it to `use`, which may be called again after a passing failure.
   * @throws Failure missing, denied, corrupt (416), unavailable, timeout, aborted; or what `use` throws
   */
  async fetch<T>(wanted: Wanted, use: (answer: Given, claim: () => void) => Promise<T>): Promise<T> {
    const { counters, limits } = this.#client
    const { endures, path, signal } = wanted
    if (endures === undefined) {
      return await retry(
        () => this.#attempt(wanted, (answer) => use(answer, () => {})),
        limits,
        signal,
        (failure) => countRetry(counters, failure),
      )
    }
    const { hosts, last, came, hedged } = endures
    return await this.host.outages.bear(
      {
        path: `${this.endpoint.repository}/${path}`,
        patienceMs: limits.patienceMs / hosts,
        // asking the next host is better than another try
        bearMs: last ? limits.bearMs : 0,
        signal,
        came,
        probe: (stop) => this.#probe(wanted, endures, stop),
      },
      (stop) =>
        hedged
          ? this.host.hedge.run(
              ({ claim, ...way }) => this.#attempt({ ...wanted, ...way }, (answer) => use(answer, claim)),
              stop,
              () => counters.hedges++,
            )
          : this.#attempt({ ...wanted, signal: stop }, (answer) => use(answer, () => {})),
    )
  }

  async #probe(wanted: Wanted, { probe }: Endures, signal: AbortSignal): Promise<{ path: boolean; host: boolean }> {
    const { headers, bytes } = probe(this.#client.limits.windowBytes)
    const asked = { ...wanted, headers: () => headers, signal }
    try {
      await this.#attempt(asked, async ({ body }) => {
        let left = bytes
        await body((part) => {
          left -= part.length
          return left <= 0 ? false : undefined
        })
      })
      return { path: true, host: true }
    } catch (error) {
      // the host answered, if not with these bytes: the next read is told what that means
      const answered = error instanceof Failure && !isUnanswered(error)
      return { path: answered && !isPassing(error), host: answered }
    }
  }

  async #attempt<T>(wanted: Wanted, use: (answer: Given) => Promise<T>): Promise<T> {
    const { authority } = this.host
    const { repository } = this.endpoint
    let target = this.host.redirects.of(repository, wanted.path)
    let authorization = target ? undefined : await authority.authorization(repository, wanted.signal)
    for (let refusals = 0; ; ) {
      const used = authorization
      const outcome = await this.#send(wanted, target, used, (answer, own) => {
        if (target === undefined && isAccepted(answer, own)) authority.accepted(repository, used)
        const anonymous = target?.anonymous ?? authority.isAnonymous(repository, used)
        const unknown = used === undefined && !authority.challenged
        return this.#judge(wanted, target, answer, { own, unknown, anonymous }, use)
      })
      if ('value' in outcome) return outcome.value
      if ('expired' in outcome) {
        target = undefined
        authorization = await authority.authorization(repository, wanted.signal)
        continue
      }
      const { refused, missing } = outcome
      const { status } = refused
      const challenge =
        parseChallenge(refused.header('www-authenticate')) ??
        (await authority.discover(() => this.#askWhatItWants(wanted.priority), wanted.signal))
      if (challenge === undefined && missing !== undefined) throw missing
      authorization = await authority
        .refused(repository, used, { status, challenge }, wanted.signal)
        .catch((error: unknown) => {
          // there are no better credentials, so the 404 stands
          throw missing !== undefined && error instanceof Failure && error.code === 'denied' ? missing : error
        })
      if (authorization === undefined || ++refusals > REFUSALS_MAX)
        throw missing ?? notLetIn(wanted.what, this.endpoint.host, status, used !== undefined)
    }
  }

  async #judge<T>(
    wanted: Wanted,
    target: Target | undefined,
    answer: Answer,
    { own, unknown, anonymous }: { own: boolean; unknown: boolean; anonymous: boolean },
    use: (answer: Given) => Promise<T>,
  ): Promise<Outcome<T>> {
    const { status } = answer
    const { redirects } = this.host
    const { repository } = this.endpoint
    if (isContent(status)) {
      if (answer.redirect !== undefined && !own && wanted.lasting) {
        redirects.remember(repository, wanted.path, { ...answer.redirect, anonymous })
      }
      return { value: await use({ ...answer, anonymous: anonymous && !(await this.#hasIdentity(answer.url.host)) }) }
    }
    if (target !== undefined && EXPIRED.has(status)) {
      redirects.forget(repository, wanted.path)
      return { expired: true }
    }
    // only the registry itself may ask who we are
    if (isRefusal(status) && own) return { refused: answer }
    // some registries answer 404 for what they show only to those whom they know
    if (status === 404 && own && unknown) return { refused: answer, missing: await refusalOf(wanted.what, answer, own) }
    throw await refusalOf(wanted.what, answer, own)
  }

  /** Whether a certificate says who we are to the registry, or to who answered for it. */
  async #hasIdentity(answering: string): Promise<boolean> {
    const trusts = await Promise.all([this.server, answering].map((each) => this.host.trust(each)))
    return trusts.some(({ identities }) => identities.length > 0)
  }

  /** The challenge of the registry as a whole (distribution specification, "determining support"), where a repository's answer has none. */
  async #askWhatItWants(priority: Priority): Promise<Challenge | undefined> {
    const { outages, scheme, trust } = this.host
    const url = new URL(`${rootOf(this.endpoint, scheme ?? 'https:')}/`)
    const { headers = {} } = this.endpoint.asked ?? {}
    const query = { url, method: 'GET', headers, trust, pulse: outages.pulse, lasts: false, priority } as const
    return await this.#client.send({ ...query, kind: 'other', follow: false }, async ({ status, header }) =>
      status === 401 ? parseChallenge(header('www-authenticate')) : undefined,
    )
  }

  /** One request; an insecure host that does not speak TLS gets it over HTTP, and is remembered. */
  async #send<T>(
    wanted: Wanted,
    target: Target | undefined,
    authorization: string | undefined,
    use: (answer: Answer, own: boolean) => Promise<T>,
  ): Promise<T> {
    const { host, endpoint } = this
    const send = (url: URL, onAnswer: () => void) =>
      this.#client.send(
        {
          url,
          method: 'GET',
          ownHeaders: target === undefined ? (endpoint.asked?.headers ?? {}) : {},
          headers: {
            ...wanted.headers(),
            ...(authorization === undefined ? {} : { authorization }),
            ...(target?.referer === undefined ? {} : { referer: target.referer }),
          },
          trust: host.trust,
          kind: kindOf(wanted.path),
          pulse: host.outages.pulse,
          lasts: wanted.endures !== undefined,
          aside: wanted.aside ?? false,
          priority: wanted.priority,
          signal: wanted.signal,
          follow: true,
        },
        (answer) => {
          onAnswer()
          return use(answer, target === undefined && answer.own)
        },
      )
    if (target !== undefined) {
      try {
        return await send(target.url, () => {})
      } catch (error) {
        // whatever the storage's trouble is, the registry may know another place
        if (isPassing(error)) host.redirects.forget(endpoint.repository, wanted.path)
        throw error
      }
    }
    const at = (scheme: 'https:' | 'http:') => {
      const url = new URL(`${rootOf(endpoint, scheme)}/${endpoint.repository}/${wanted.path}`)
      if (endpoint.asked?.namespace !== undefined) url.searchParams.append('ns', endpoint.asked.namespace)
      return url
    }
    if (performance.now() > host.schemeUntil) host.scheme = undefined
    if (host.scheme !== undefined) {
      try {
        return await send(at(host.scheme), () => {})
      } catch (error) {
        // what answered over HTTP may have been a stand-in while the registry was restarted
        if (endpoint.insecure && (isPassing(error) || speaksHttp(error))) host.scheme = undefined
        throw error
      }
    }
    let answered = false
    try {
      return await send(at('https:'), () => {
        answered = true
        host.scheme = 'https:'
        host.schemeUntil = Number.POSITIVE_INFINITY
      })
    } catch (error) {
      if (!endpoint.insecure || answered || !(isPassing(error) || speaksHttp(error))) throw error
      return await send(at('http:'), () => {
        host.scheme = 'http:'
        // a host that did not answer over TLS may do so later; one that spoke HTTP there will not
        host.schemeUntil = speaksHttp(error) ? Number.POSITIVE_INFINITY : performance.now() + UNANSWERED_MS
      })
    }
  }
}

/** Who is really asked. */
export function serverOf({ host }: Endpoint): string {
  return host === 'docker.io' ? 'registry-1.docker.io' : host
}

/** What the URL of all that is asked begins with. */
export function rootOf(endpoint: Endpoint, scheme: string): string {
  return `${scheme}//${serverOf(endpoint)}${endpoint.asked?.api ?? '/v2'}`
}

function isContent(status: number): boolean {
  return status === 200 || status === 206
}

/** Whether the registry let us in: what it leads elsewhere was accepted; its own troubles say nothing. */
function isAccepted({ status }: Answer, own: boolean): boolean {
  return !own || isContent(status) || (status < 500 && !isRefusal(status))
}

/** @param path below the repository */
function kindOf(path: string): AskedFor {
  if (path.startsWith('blobs/')) return 'blob'
  return path.startsWith('manifests/') ? 'manifest' : 'other'
}
