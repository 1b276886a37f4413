// Connections to registries: one agent a way of securing them, one queue an origin.
import { Failure } from '../errors.ts'
import { BACKGROUND_WINDOW_BYTES } from '../image/blob.ts'
import { Gate } from './gate.ts'
import type { Limits } from './limits.ts'
import type { ForwardProxy, Proxies } from './proxies.ts'
import { InRow } from './retry.ts'
import { type Connect, Routes, type Way } from './routes.ts'
import type { Trust } from './trust.ts'
import { Agent } from './undici.ts'

/** Prefetch leaves this many places of a host to demand. */
const DEMAND_RESERVE = 2
/** As Node's own default; an answer with more headers is an error. */
const HEADERS_MAX_BYTES = 16 << 10
/**
 * An idle connection is kept so long for the next read, which spares it two round trips and more: who starts one image often starts
 * another. Routers keep theirs for 5 minutes, and HTTP/2's pings keep them busy; a server that wants it gone says so.
 */
const KEEP_ALIVE_MS = 4 * 60_000
/** What may be under way for one read: 2 MiB keep 20 MB/s flowing over a round trip of 100 ms. */
const STREAM_WINDOW_BYTES = 2 << 20
const CONNECTION_WINDOW_BYTES = 16 << 20

/** Origins of which something is kept; redirects may name any number of them. */
const ORIGINS_MAX = 1024

/**
 * shared  all requests to an origin go over one connection, or a few
 * aside   over the one that all will have when connections are renewed the next time
 * upload  over HTTP/1.1, a connection each: where an upload is given up over HTTP/2, Node.js 20 sends what is left for ever, in a loop
 *         that nothing ends
 * background  what nobody waits for, over one of its own: how much of a stream is on its way is set for all streams of a connection
 */
export type Use = 'shared' | 'aside' | 'upload' | 'background'

/** Of agents for origins whose HTTP/2 does not work. */
const OLDER = 'HTTP/1.1 '

/** What a connection speaks. */
export type Protocol = 'HTTP/2' | 'HTTP/1.1'

/** Keeps agents and queues. */
export class Connections {
  readonly #limits: Limits
  readonly #routes: Routes
  /** By origin. */
  readonly #ways = new Map<string, Way>()
  readonly #onConnect: () => void
  readonly #agents = new Map<string, Agent>()
  /** How often connections to an origin were given up. */
  readonly #renewals = new Map<string, number>()
  readonly #gates = new Map<string, Gate>()
  /** Of the newest connection to each origin. */
  readonly #protocols = new Map<string, Protocol>()
  /** Origins whose HTTP/2 does not work, or that of what stands before them: for 5 minutes they are asked over HTTP/1.1. */
  readonly #brokenHttp2 = new InRow(3, 5 * 60_000)
  #closed = false

  constructor(limits: Limits, proxies: Proxies, onConnect: () => void) {
    this.#limits = limits
    this.#routes = new Routes(proxies, limits.connectMs)
    this.#onConnect = onConnect
  }

  get closed(): boolean {
    return this.#closed
  }

  named(host: string): void {
    this.#routes.named(host)
  }

  /** @throws Failure denied (an address that is off limits), usage (no proxy's URL) */
  way(url: URL): Way {
    let way = this.#ways.get(url.origin)
    if (way === undefined) {
      way = this.#routes.way(url)
      if (this.#ways.size >= ORIGINS_MAX) this.#ways.clear()
      this.#ways.set(url.origin, way)
    }
    return way
  }

  /** The queue of an origin. */
  gate(origin: string): Gate {
    let gate = this.#gates.get(origin)
    if (!gate) {
      if (this.#gates.size >= ORIGINS_MAX) for (const [of, each] of this.#gates) if (each.idle) this.#gates.delete(of)
      // until a connection says h2, it may be HTTP/1.1
      gate = new Gate(this.#limits.connections, DEMAND_RESERVE)
      this.#gates.set(origin, gate)
    }
    return gate
  }

  /** What an origin speaks; undefined: there was no connection to it. */
  protocol(origin: string): Protocol | undefined {
    return this.#protocols.get(origin)
  }

  /** Over HTTP/2 an answer came to its end, or (`broke`) a request that was sent at `sentAt` (performance.now) failed by it, or stood still. */
  http2(origin: string, sentAt: number, broke: boolean): void {
    if (this.#protocols.get(origin) !== 'HTTP/2') return
    if (broke) this.#brokenHttp2.happened(origin, sentAt)
    else this.#brokenHttp2.ended(origin)
  }

  /**
   * From now on requests to an origin go over new connections: the old ones are silent. Those under way on them end by their own
   * deadlines.
   * @param seen how often it had been done when the request began that found them silent
   */
  renew(origin: string, seen: number): void {
    if (this.renewals(origin) !== seen) return // others saw it, too
    if (this.#renewals.size >= ORIGINS_MAX) this.#renewals.clear()
    this.#renewals.set(origin, seen + 1)
  }

  /** How often that was done. */
  renewals(origin: string): number {
    return this.#renewals.get(origin) ?? 0
  }

  /**
   * The agent for `origin`: one a way of securing connections, another where they were renewed. Agents keep one connection an origin,
   * more only for HTTP/1.1.
   * @param proxy forwards the requests itself
   */
  agent(trust: Trust, origin: string, proxy: ForwardProxy | undefined, use: Use): Agent {
    if (this.#closed) throw Failure.aborted('the registry client is closed')
    const renewals = this.renewals(origin)
    const http2 = use !== 'upload' && !this.#brokenHttp2.of(origin)
    const protocol = http2 ? '' : OLDER
    const key =
      use === 'upload'
        ? `upload ${keyOf(trust, origin, proxy, 0)}`
        : `${protocol}${use === 'background' ? 'background ' : ''}${keyOf(trust, origin, proxy, renewals + Number(use === 'aside'))}`
    if (renewals > 1 && use === 'shared') this.#drop(keyOf(trust, origin, proxy, renewals - 1))
    if (renewals > 0 && use === 'background') this.#drop(`background ${keyOf(trust, origin, proxy, renewals - 1)}`)
    let agent = this.#agents.get(key)
    if (!agent) {
      agent = proxy === undefined ? this.#hostsAgent(trust, use, http2) : this.#proxyAgent()
      this.#agents.set(key, agent)
    }
    return agent
  }

  /** A request aside has ended: its connection goes, unless all have it by now. */
  endAside(trust: Trust, origin: string, proxy: ForwardProxy | undefined): void {
    this.#drop(keyOf(trust, origin, proxy, this.renewals(origin) + 1))
  }

  #hostsAgent(trust: Trust, use: Use, http2: boolean): Agent {
    const connect: Connect = this.#routes.toHosts(trust, http2)
    const isBackground = use === 'background'
    const window = isBackground ? BACKGROUND_WINDOW_BYTES : STREAM_WINDOW_BYTES
    return new Agent({
      allowH2: http2,
      connections: isBackground ? 1 : this.#limits.connections,
      maxHeaderSize: HEADERS_MAX_BYTES,
      keepAliveTimeout: KEEP_ALIVE_MS,
      // undici 8.12 checks the setting below, but sends this older option
      initialWindowSize: window,
      h2Options: {
        maxConcurrentStreams: this.#limits.streams * 2,
        connectionWindowSize: CONNECTION_WINDOW_BYTES,
        settings: { initialWindowSize: window },
      },
      connect: (options, callback) =>
        connect(options, (...result) => {
          const [error, socket] = result
          if (error !== null) return callback(error, null)
          this.#onConnect()
          if (use === 'upload') return callback(null, socket)
          const { streams, connections } = this.#limits
          const h2 = 'alpnProtocol' in socket && socket.alpnProtocol === 'h2'
          const { origin } = new URL(`${options.protocol}//${options.host ?? `${options.hostname}:${options.port}`}`)
          this.gate(origin).limit = h2 ? streams : connections
          if (this.#protocols.size >= ORIGINS_MAX) this.#protocols.clear()
          this.#protocols.set(origin, h2 ? 'HTTP/2' : 'HTTP/1.1')
          return callback(null, socket)
        }),
    })
  }

  #proxyAgent(): Agent {
    const connect = this.#routes.toProxy()
    return new Agent({
      connections: this.#limits.connections,
      maxHeaderSize: HEADERS_MAX_BYTES,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connect: (options, callback) =>
        connect(options, (...result) => {
          if (result[0] === null) this.#onConnect()
          callback(...result)
        }),
    })
  }

  /** An agent that only a silent origin had. What is under way on it fails as a lost connection does, and is tried again. */
  #drop(key: string): void {
    for (const each of [key, OLDER + key]) {
      const agent = this.#agents.get(each)
      this.#agents.delete(each)
      void agent?.destroy() // ends when its sockets have
    }
  }

  /** Ends all connections; requests under way fail with `aborted`. */
  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#agents.values()].map((agent) => agent.destroy()))
    await this.#routes.close()
  }
}

/** Of an agent; `renewals`: of the connections to `origin`. */
function keyOf(trust: Trust, origin: string, proxy: ForwardProxy | undefined, renewals: number): string {
  const secured = proxy === undefined ? JSON.stringify(trust) : 'a proxy'
  return renewals === 0 ? secured : `${secured} ${origin} ${renewals}`
}
