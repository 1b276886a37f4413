// Speaks HTTP: one request with its deadlines, its place in the host's queue, and redirects by hand.
import { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { abortion, Failure } from '../errors.ts'
import type { Priority } from '../image/blob.ts'
import { Connections, type Protocol } from './connections.ts'
import type { Limits } from './limits.ts'
import type { Proxies } from './proxies.ts'
import { type AnswerBody, AnswerTimes, type AskedFor, Pulse, Watch } from './pulse.ts'
import { lifetimeMs, REDIRECTS_MAX, redirectTarget, refererOf } from './redirect.ts'
import { passing, pauseAskedMs, serverNow, unanswered } from './retry.ts'
import { tlsFailure } from './tls-failure.ts'
import type { Trust } from './trust.ts'
import { refusedBy } from './tunnel.ts'

/** One request, as its sender knows it. */
export interface Query {
  url: URL
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH'
  headers: Readonly<Record<string, string>>
  /** Sent to the origin of `url` alone. */
  ownHeaders?: Readonly<Record<string, string>>
  /** What streams is sent once, with a `content-length` among the headers. */
  body?: string | AsyncIterable<Uint8Array>
  /** How connections to a host are secured; asked again for each redirect's host. */
  trust: (host: string) => Promise<Trust>
  /** To be counted as. */
  kind: AskedFor
  /** What is heard of whoever answers counts for it. Default: one of this request's own. */
  pulse?: Pulse
  /** Over a connection of its own, past the host's queue: a second request for what another is asked for and does not bring. */
  aside?: boolean
  /** It may last as long as its host gives something; otherwise `totalMs`. */
  lasts?: boolean
  priority: Priority
  signal?: AbortSignal | undefined
  /** How long the host may give and take nothing; default: as `limits` have it. */
  stallMs?: number
  follow: boolean
}

/** What came back; headers are in hand, the body is still to be read. */
export interface Answer {
  status: number
  header(name: string): string | undefined
  /** What answered, after redirects. */
  url: URL
  /** No redirect led away from the origin that was asked. */
  own: boolean
  /** Where the first redirect led, how long that lasts, and the Referer to go there with, if there was one. */
  redirect: { url: URL; referer: string | undefined; lifetimeMs: number | undefined } | undefined
  /** To be read at most once; what is left is dropped with the stream. */
  body: AnswerBody
}

/** What was done since the client was made. */
export interface Counters {
  requests: number
  /** Requests that are under way now. */
  underWay: number
  /** Body bytes received. */
  fetched: number
  /** Of these, what nobody waited for yet. */
  prefetched: number
  /** Requests that were tried again: nobody had answered, or the answer was to try again. */
  retries: number
  retriesUnanswered: number
  redirects: number
  tokens: number
  /** Of these, those that were not given. */
  tokensRefused: number
  connections: number
  /** Reads that were asked for on a second connection, too. */
  hedges: number
  /** Hosts or blobs that gave nothing for too long, and reads that failed at once for that. */
  outages: number
  failedAtOnce: number
}

/** So much of an answer that carries no content is read. */
const REFUSAL_MAX_BYTES = 16 << 10

/** What a host answers that has too much to do. */
const OVERLOADED = new Set([429, 503])

const REDIRECT_STATUS = new Set([301, 302, 303, 307, 308])

/** Sends requests; keeps connections, queues and counters. */
export class Client {
  readonly limits: Limits
  readonly counters: Counters = {
    requests: 0,
    underWay: 0,
    fetched: 0,
    prefetched: 0,
    retries: 0,
    retriesUnanswered: 0,
    redirects: 0,
    tokens: 0,
    tokensRefused: 0,
    connections: 0,
    hedges: 0,
    outages: 0,
    failedAtOnce: 0,
  }
  /** From sending a request until its answer begins. */
  readonly times = new AnswerTimes()
  readonly #connections: Connections

  constructor(limits: Limits, proxies: Proxies) {
    this.limits = limits
    this.#connections = new Connections(limits, proxies, () => this.counters.connections++)
  }

  /** `host` (host[:port]) is named by the settings of whoever runs this process. */
  named(host: string): void {
    this.#connections.named(host)
  }

  /** What an origin speaks; undefined: there was no connection to it. */
  protocol(origin: string): Protocol | undefined {
    return this.#connections.protocol(origin)
  }

  /**
   * Sends one request and hands the answer to `use`, which reads the body. The place in the queue is kept until `use` is done.
   * @throws Failure unavailable, timeout (marked as passing), denied (certificate, redirect), aborted, timeout; or what `use` throws
   */
  async send<T>(query: Query, use: (answer: Answer) => Promise<T>): Promise<T> {
    const { signal } = query
    const stop = new AbortController()
    const giveUp = () => stop.abort(abortion(signal))
    if (signal?.aborted) throw abortion(signal)
    signal?.addEventListener('abort', giveUp, { once: true })
    try {
      return await this.#follow(query, stop, use)
    } finally {
      signal?.removeEventListener('abort', giveUp)
    }
  }

  async #follow<T>(query: Query, stop: AbortController, use: (answer: Answer) => Promise<T>): Promise<T> {
    let { url } = query
    let redirect: Answer['redirect']
    let own = true
    const { ownHeaders = {} } = query
    const headers: Record<string, string> = { ...ownHeaders, ...query.headers }
    for (let hops = 0; ; hops++) {
      const outcome = await this.#once(query, url, headers, stop, async (answer) => {
        if (!query.follow || !REDIRECT_STATUS.has(answer.status))
          return { value: await use({ ...answer, redirect, own }) }
        if (hops >= REDIRECTS_MAX) throw Failure.denied(`${query.url.host}: more than ${REDIRECTS_MAX} redirects`)
        const to = redirectTarget(url, answer.header('location'))
        this.counters.redirects++
        const referer = refererOf(url, to)
        redirect ??= { url: to, referer, lifetimeMs: lifetimeMs(to, serverNow(answer.header)) }
        return { to, referer }
      })
      if ('value' in outcome) return outcome.value
      if (outcome.referer === undefined) delete headers.referer
      else headers.referer = outcome.referer
      // Never added again, not even when the chain comes back to the first origin: another host chose that URL.
      if (outcome.to.origin !== url.origin) {
        const secret = Object.keys(ownHeaders).filter((name) => query.headers[name] === undefined)
        for (const name of ['authorization', ...secret]) delete headers[name]
        own = false
      }
      url = outcome.to
    }
  }

  async #once<T>(
    query: Query,
    url: URL,
    headers: Readonly<Record<string, string>>,
    stop: AbortController,
    take: (answer: Answer) => Promise<T>,
  ): Promise<T> {
    const { proxy, ...way } = this.#connections.way(url)
    const trust = await query.trust(url.host)
    const { aside = false, priority } = query
    const use = aside
      ? 'aside'
      : typeof query.body === 'object'
        ? 'upload'
        : priority === 'background'
          ? priority
          : 'shared'
    const gate = this.#connections.gate(url.origin)
    // whoever reads in the background bounds it himself (fetch/wire.ts)
    if (priority === 'background') await gate.rested(stop.signal)
    const leave = aside || priority === 'background' ? () => {} : await gate.enter(priority, stop.signal)
    const agent = this.#connections.agent(trust, url.origin, proxy, use)
    const renewals = this.#connections.renewals(url.origin)
    const pulse = query.pulse ?? new Pulse(this.limits)
    const wasSilent = pulse.silentMs() >= this.limits.hedgeMs
    const ended = pulse.begin()
    const stream = pulse.stream()
    let isSilent = false
    const limits = query.stallMs === undefined ? this.limits : { ...this.limits, stallMs: query.stallMs }
    const watch = new Watch(url.host, limits, pulse, stream, (failure, silent) => {
      isSilent = silent
      stop.abort(failure)
      // a connection that a router has forgotten is as silent as a registry that hangs
      if (silent) this.#connections.renew(url.origin, renewals)
    })
    // time in the queue is the caller's to bound
    const { totalMs } = this.limits
    const end = () => stop.abort(Failure.timeout(`${url.host}: no end within ${totalMs} ms`))
    const timer = query.lasts ? undefined : setTimeout(end, totalMs)
    let response: Dispatcher.ResponseData | undefined
    const sentAt = performance.now()
    this.counters.underWay++
    try {
      this.counters.requests++
      response = await agent.request({
        origin: way.origin,
        path: way.prefix + url.pathname + url.search,
        method: query.method,
        headers: { 'accept-encoding': 'identity', 'user-agent': 'lazylayer', ...headers, ...way.headers },
        body: bodyOf(query.body, watch, stop),
        signal: stop.signal,
        headersTimeout: 0,
        bodyTimeout: 0,
      })
      response.body.on('error', () => {}) // the reader hears of it; after that nobody needs to
      const { headers: received, statusCode: status } = response
      const header = (name: string): string | undefined => {
        const value = Object.hasOwn(received, name) ? received[name] : undefined
        return Array.isArray(value) ? value.join(', ') : value
      }
      if (OVERLOADED.has(status)) gate.shed(sentAt, pauseAskedMs(header))
      this.times.note(query.kind, status, (performance.now() - sentAt) / 1000)
      // it answers on a new connection, and gave nothing on the old one
      if (aside && wasSilent) this.#connections.renew(url.origin, renewals)
      if (proxy !== undefined && status === 407) throw refusedBy(proxy, status, url.host)
      const value = await take({
        status,
        header,
        url,
        redirect: undefined,
        own: true,
        body: watch.through(response.body, (bytes) => {
          this.counters.fetched += bytes
          if (priority === 'prefetch') this.counters.prefetched += bytes
        }),
      })
      stream.overtake()
      if (status < 400) gate.bore()
      this.#connections.http2(url.origin, sentAt, false)
      return value
    } catch (error) {
      if (response === undefined) this.times.note(query.kind, undefined, (performance.now() - sentAt) / 1000)
      if (isHttp2Error(error)) gate.shed(sentAt) // it may be too much for it
      if (isSilent || isHttp2Error(error)) this.#connections.http2(url.origin, sentAt, true)
      throw this.#sorted(error, query, url, stop.signal)
    } finally {
      clearTimeout(timer)
      this.counters.underWay--
      watch.close()
      if (response) await dispose(response, stop.signal, this.limits.stallMs)
      ended()
      stream.end()
      leave()
      if (aside) this.#connections.endAside(trust, url.origin, proxy)
    }
  }

  /** What an error of the network means: give up (the caller's wish, a certificate), or try again. */
  #sorted(error: unknown, query: Query, url: URL, signal: AbortSignal): unknown {
    if (signal.aborted) {
      const failure = abortion(signal)
      return failure.code === 'timeout' && !query.signal?.aborted ? passing(unanswered(failure)) : failure
    }
    if (error instanceof Failure) return error
    if (this.#connections.closed) return Failure.aborted(`${url.host}: the connection was closed by us`)
    // what has no code comes neither from the network nor from undici, but from a mistake of ours
    if (!(error instanceof Error) || !('code' in error)) return error
    const code = String(error.code)
    const refused = url.protocol === 'https:' ? tlsFailure(error, code, url.host, Date.now()) : undefined
    if (refused !== undefined) return refused
    if (code === 'UND_ERR_CONNECT_TIMEOUT') {
      return passing(unanswered(Failure.timeout(`${url.host} does not answer`, { cause: error })))
    }
    // of several addresses the first one's error says most
    const cause: unknown = error instanceof AggregateError ? (error.errors[0] ?? error) : error
    return passing(unanswered(Failure.unavailable(`cannot talk to ${url.host}`, { cause })))
  }

  /** Ends all connections; requests under way fail with `aborted`. */
  async close(): Promise<void> {
    await this.#connections.close()
  }
}

/** Whether a stream or its session ended by an error of HTTP/2 (Node.js, "Errors"). */
function isHttp2Error(error: unknown): boolean {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_HTTP2_')
}

/** A short refusal is read to its end, which keeps an HTTP/1.1 connection; content that nobody wants is cut off. */
async function dispose(response: Dispatcher.ResponseData, stop: AbortSignal, ms: number): Promise<void> {
  const { body, statusCode } = response
  if (statusCode >= 300 && !body.destroyed && !stop.aborted) {
    const signal = AbortSignal.any([stop, AbortSignal.timeout(ms)])
    await body.dump({ limit: REFUSAL_MAX_BYTES, signal }).catch(() => {}) // it is thrown away either way
  }
  body.destroy()
}

/** What is sent; a body that fails ends its request. */
function bodyOf(body: Query['body'], watch: Watch, stop: AbortController): string | Readable | null {
  if (body === undefined || typeof body === 'string') return body ?? null
  const sending = async function* () {
    try {
      yield* watch.sending(body)
    } catch (error) {
      stop.abort(error)
    }
  }
  return Readable.from(sending(), { objectMode: false })
}
