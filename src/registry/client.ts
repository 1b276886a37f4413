// The only place that speaks HTTP: one request with its deadlines, its place in the host's queue, and redirects by hand.
import { createSecureContext, type SecureContext } from 'node:tls'
import { Agent, buildConnector, type Dispatcher } from 'undici'
import { Failure } from '../errors.ts'
import type { Priority } from '../image/blob.ts'
import { abortion, Gate } from './gate.ts'
import type { Limits } from './limits.ts'
import { isLinkLocal, lifetimeMs, REDIRECTS_MAX, redirectTarget } from './redirect.ts'
import { Transient } from './retry.ts'
import { systemAuthorities, type Trust } from './trust.ts'

export interface Query {
  url: URL
  method: 'GET' | 'POST'
  headers: Readonly<Record<string, string>>
  body?: string
  /** How connections to a host are secured; asked again for each redirect's host. */
  trust: (host: string) => Promise<Trust>
  /** Body bytes expected at most; a longer one may take longer. */
  expected: number
  priority: Priority
  signal?: AbortSignal | undefined
  follow: boolean
}

export interface Answer {
  status: number
  header(name: string): string | undefined
  /** What answered, after redirects. */
  url: URL
  /** No redirect led away from the origin that was asked. */
  own: boolean
  /** Where the first redirect led and how long that lasts, if there was one. */
  redirect: { url: URL; lifetimeMs: number | undefined } | undefined
  /** To be read at most once; what is left is dropped with the stream. */
  body: AsyncIterable<Uint8Array>
}

export interface Counters {
  requests: number
  /** Body bytes received. */
  fetched: number
  retries: number
  redirects: number
  tokens: number
  connections: number
}

/** Prefetch leaves this many places of a host to demand. */
const DEMAND_RESERVE = 2
/** 16 KB/s: what a long body must bring on the average, beyond the floor of each window. */
const TOTAL_BYTES_PER_MS = 16
/** As Node's own default; an answer with more headers is an error. */
const HEADERS_MAX_BYTES = 16 << 10
/** An idle connection is kept a little longer than registries' token lifetimes make sense of. */
const KEEP_ALIVE_MS = 30_000
const STREAM_WINDOW_BYTES = 1 << 20
const CONNECTION_WINDOW_BYTES = 8 << 20

/** Origins whose queues are kept; redirects may name any number of them. */
const GATES_MAX = 1024
/** What is read of an answer that is no content. */
const REFUSAL_MAX_BYTES = 16 << 10

const REDIRECT_STATUS = new Set([301, 302, 303, 307, 308])

export class Client {
  readonly limits: Limits
  readonly counters: Counters = { requests: 0, fetched: 0, retries: 0, redirects: 0, tokens: 0, connections: 0 }
  readonly #agents = new Map<string, Agent>()
  readonly #gates = new Map<string, Gate>()
  /** Hosts that the user named: these alone may have link-local addresses. */
  readonly #named = new Set<string>()
  #closed = false

  constructor(limits: Limits) {
    this.limits = limits
  }

  /** `host` (host[:port]) was named by the user or the user's settings. */
  named(host: string): void {
    this.#named.add(bare(new URL(`https://${host}`).hostname))
  }

  /**
   * Sends one request and hands the answer to `use`, which reads the body. The place in the queue is kept until `use` is done.
   * @throws Transient (may be tried again), Failure denied (certificate, redirect), aborted, timeout; or what `use` throws
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
    const headers: Record<string, string> = { ...query.headers }
    for (let hops = 0; ; hops++) {
      const outcome = await this.#once(query, url, headers, stop, async (answer) => {
        if (!query.follow || !REDIRECT_STATUS.has(answer.status))
          return { value: await use({ ...answer, redirect, own }) }
        if (hops >= REDIRECTS_MAX) throw Failure.denied(`${query.url.host}: more than ${REDIRECTS_MAX} redirects`)
        const to = redirectTarget(url, answer.header('location'))
        this.counters.redirects++
        const clock = Date.parse(answer.header('date') ?? '')
        redirect ??= { url: to, lifetimeMs: lifetimeMs(to, Number.isNaN(clock) ? Date.now() : clock) }
        return { to }
      })
      if ('value' in outcome) return outcome.value
      // dropped for good: a chain that comes back to the first origin was led there by somebody else
      if (outcome.to.origin !== url.origin) {
        delete headers.authorization
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
    use: (answer: Answer) => Promise<T>,
  ): Promise<T> {
    const agent = this.#agent(await query.trust(url.host))
    const gate = this.#gate(url.origin)
    const leave = await gate.enter(query.priority, stop.signal)
    // time in the queue is the caller's to bound
    const total = this.limits.totalMs + query.expected / TOTAL_BYTES_PER_MS
    const timer = setTimeout(() => stop.abort(Failure.timeout(`${url.host}: no end within ${total} ms`)), total)
    let response: Dispatcher.ResponseData | undefined
    try {
      this.counters.requests++
      response = await agent.request({
        origin: url.origin,
        path: url.pathname + url.search,
        method: query.method,
        headers: { 'accept-encoding': 'identity', 'user-agent': 'lazylayer', ...headers },
        body: query.body ?? null,
        signal: stop.signal,
        headersTimeout: this.limits.headersMs,
        bodyTimeout: 0,
      })
      response.body.on('error', () => {}) // the reader hears of it; after that nobody needs to
      const { headers: received, statusCode: status } = response
      const header = (name: string): string | undefined => {
        const value = Object.hasOwn(received, name) ? received[name] : undefined
        return Array.isArray(value) ? value.join(', ') : value
      }
      const encoding = header('content-encoding')
      if (encoding !== undefined && encoding !== '' && encoding.toLowerCase() !== 'identity') {
        throw Failure.corrupt(`${url.host}: answers with content encoding ${JSON.stringify(encoding.slice(0, 40))}`, {
          why: 'none was asked for',
        })
      }
      return await use({
        status,
        header,
        url,
        redirect: undefined,
        own: true,
        body: this.#watched(response.body, url, stop),
      })
    } catch (error) {
      throw this.#sorted(error, url, stop.signal)
    } finally {
      clearTimeout(timer)
      if (response) await dispose(response, stop.signal, this.limits.headersMs)
      leave()
    }
  }

  /** Counts a body's bytes and gives up on one that brings too few. */
  async *#watched(body: AsyncIterable<Uint8Array>, url: URL, stop: AbortController): AsyncGenerator<Uint8Array> {
    const { windowMs, windowBytes } = this.limits
    let fresh = 0
    // a reader who takes his time is no stall
    let taking = false
    const timer = setInterval(() => {
      if (fresh < windowBytes && !taking) {
        stop.abort(
          Failure.timeout(`${url.host}: sent ${fresh} bytes in ${windowMs} ms`, { why: 'the transfer stalled' }),
        )
      }
      fresh = 0
    }, windowMs)
    try {
      for await (const bytes of body) {
        fresh += bytes.length
        this.counters.fetched += bytes.length
        taking = true
        yield bytes
        taking = false
      }
    } finally {
      clearInterval(timer)
    }
  }

  /** What an error of the network means: give up (the caller's wish, a certificate), or try again. */
  #sorted(error: unknown, url: URL, signal: AbortSignal): Error {
    if (signal.aborted) {
      const failure = abortion(signal)
      return failure.code === 'timeout' ? new Transient(failure) : failure
    }
    if (error instanceof Failure || error instanceof Transient) return error
    if (this.#closed) return Failure.aborted(`${url.host}: the connection was closed by us`)
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    if (/ALERT/.test(code)) {
      return Failure.denied(`${url.host}: refuses the connection's TLS`, {
        cause: error,
        fix: `If it wants a client certificate, put client.cert and client.key into /etc/containers/certs.d/${url.host}/.`,
      })
    }
    if (/CERT|VERIFY|ALTNAME|SELF_SIGNED|HOSTNAME_MISMATCH/.test(code)) {
      return Failure.denied(`${url.host}: its certificate is not trusted`, {
        cause: error,
        fix: `Put its authority into /etc/containers/certs.d/${url.host}/ca.crt, or name it with --cert-dir.`,
      })
    }
    if (code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_CONNECT_TIMEOUT') {
      return new Transient(Failure.timeout(`${url.host} does not answer`, { cause: error }))
    }
    // of several addresses the first one's error says most
    const cause: unknown = error instanceof AggregateError ? (error.errors[0] ?? error) : error
    return new Transient(Failure.unavailable(`cannot talk to ${url.host}`, { cause }))
  }

  #gate(origin: string): Gate {
    let gate = this.#gates.get(origin)
    if (!gate) {
      if (this.#gates.size >= GATES_MAX) for (const [of, each] of this.#gates) if (each.idle) this.#gates.delete(of)
      // until a connection says h2, it may be HTTP/1.1
      gate = new Gate(this.limits.connections, DEMAND_RESERVE)
      this.#gates.set(origin, gate)
    }
    return gate
  }

  /** One agent a way of securing connections. Agents keep one connection an origin, more only for HTTP/1.1. */
  #agent(trust: Trust): Agent {
    if (this.#closed) throw Failure.aborted('the registry client is closed')
    const key = JSON.stringify(trust)
    let agent = this.#agents.get(key)
    if (!agent) {
      const connector = buildConnector({
        allowH2: true,
        preferH2: true,
        rejectUnauthorized: trust.verify,
        secureContext: secureContext(trust),
        timeout: this.limits.connectMs,
        autoSelectFamily: true,
      })
      agent = new Agent({
        allowH2: true,
        connections: this.limits.connections,
        maxHeaderSize: HEADERS_MAX_BYTES,
        keepAliveTimeout: KEEP_ALIVE_MS,
        h2Options: {
          maxConcurrentStreams: this.limits.streams * 2,
          connectionWindowSize: CONNECTION_WINDOW_BYTES,
          settings: { initialWindowSize: STREAM_WINDOW_BYTES },
        },
        connect: (options, callback) =>
          connector(options, (...result) => {
            const [error, socket] = result
            if (error !== null) return callback(error, null)
            const address = socket.remoteAddress ?? ''
            if (isLinkLocal(address) && !this.#named.has(bare(options.hostname))) {
              socket.destroy()
              return callback(Failure.denied(`${options.hostname} has the link-local address ${address}`), null)
            }
            this.counters.connections++
            const { streams, connections } = this.limits
            const h2 = 'alpnProtocol' in socket && socket.alpnProtocol === 'h2'
            const { origin } = new URL(`${options.protocol}//${options.host ?? `${options.hostname}:${options.port}`}`)
            this.#gate(origin).limit = h2 ? streams : connections
            return callback(null, socket)
          }),
      })
      this.#agents.set(key, agent)
    }
    return agent
  }

  /** Ends all connections; requests under way fail with `aborted`. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#agents.values()].map((agent) => agent.destroy()))
  }
}

/** An IPv6 address without its brackets. */
function bare(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, '')
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

function secureContext(trust: Trust): SecureContext {
  const [first] = trust.identities
  return createSecureContext({
    ca: [...systemAuthorities(), ...trust.authorities],
    ...(first
      ? { cert: trust.identities.map((each) => each.cert), key: trust.identities.map((each) => each.key) }
      : {}),
  })
}
