// Connections to registries: one agent a way of securing them, one queue an origin; through forward proxies where they are named.
import { lookup } from 'node:dns'
import type { LookupFunction, Socket } from 'node:net'
import { createSecureContext, type SecureContext } from 'node:tls'
import { Agent, buildConnector } from 'undici'
import { Failure } from '../errors.ts'
import { Gate } from './gate.ts'
import type { Limits } from './limits.ts'
import { isOffLimits, NAME_IT } from './off-limits.ts'
import type { ForwardProxy, Proxies } from './proxies.ts'
import { notingCertificates } from './tls-failure.ts'
import { systemAuthorities, type Trust } from './trust.ts'
import { Tunnels } from './tunnel.ts'

/** Prefetch leaves this many places of a host to demand. */
const DEMAND_RESERVE = 2
/** As Node's own default; an answer with more headers is an error. */
const HEADERS_MAX_BYTES = 16 << 10
/** An idle connection is kept a little longer than registries' token lifetimes make sense of. */
const KEEP_ALIVE_MS = 30_000
/** What may be under way for one read: 2 MiB keep 20 MB/s flowing over a round trip of 100 ms. */
const STREAM_WINDOW_BYTES = 2 << 20
const CONNECTION_WINDOW_BYTES = 16 << 20

/** Origins whose queues are kept; redirects may name any number of them. */
const GATES_MAX = 1024

/** What a connection speaks. */
export type Protocol = 'HTTP/2' | 'HTTP/1.1'

/** How one request goes out. */
export interface Way {
  agent: Agent
  origin: string
  path: string
  /** For a proxy that forwards the request itself. */
  headers: Readonly<Record<string, string>>
  proxy: ForwardProxy | undefined
}

type Connect = buildConnector.connector

/** Keeps agents and queues, and knows which hosts the user's settings name. */
export class Connections {
  readonly #limits: Limits
  readonly #proxies: Proxies
  readonly #onConnect: () => void
  readonly #agents = new Map<string, Agent>()
  readonly #gates = new Map<string, Gate>()
  /** Of the newest connection to each origin. */
  readonly #protocols = new Map<string, Protocol>()
  /** `host[:port]` that settings name: these alone may have addresses that are off limits. */
  readonly #named = new Set<string>()
  /** By the proxy's URL and credentials. */
  readonly #tunnels = new Map<string, Tunnels>()
  /** To proxies that forward requests themselves. */
  #forwarding: Agent | undefined
  #closed = false

  constructor(limits: Limits, proxies: Proxies, onConnect: () => void) {
    this.#limits = limits
    this.#proxies = proxies
    this.#onConnect = onConnect
  }

  get closed(): boolean {
    return this.#closed
  }

  named(host: string): void {
    // as URLs of either scheme write it, which leave out a default port
    for (const scheme of ['https:', 'http:'])
      if (URL.canParse(`${scheme}//${host}`)) this.#named.add(new URL(`${scheme}//${host}`).host)
  }

  /** The queue of an origin. */
  gate(origin: string): Gate {
    let gate = this.#gates.get(origin)
    if (!gate) {
      if (this.#gates.size >= GATES_MAX) for (const [of, each] of this.#gates) if (each.idle) this.#gates.delete(of)
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

  /** @throws Failure denied (an address that is off limits), usage (no proxy's URL), aborted */
  way(url: URL, trust: Trust): Way {
    if (this.#closed) throw Failure.aborted('the registry client is closed')
    // as literals also before a proxy, which looks names up itself
    if (isOffLimits(url.hostname) && !this.#named.has(url.host)) throw offLimits(url.hostname, url.hostname)
    const proxy = this.#proxies(url)
    const path = url.pathname + url.search
    if (proxy === undefined || url.protocol === 'https:') {
      return { agent: this.#agent(trust), origin: url.origin, path, headers: {}, proxy: undefined }
    }
    const { authorization } = proxy
    return {
      agent: this.#forwarder(),
      origin: proxy.url.origin,
      path: url.origin + path, // RFC 9112 3.2.2
      headers: { host: url.host, ...(authorization === undefined ? {} : { 'proxy-authorization': authorization }) },
      proxy,
    }
  }

  /** One agent a way of securing connections. Agents keep one connection an origin, more only for HTTP/1.1. */
  #agent(trust: Trust): Agent {
    const key = JSON.stringify(trust)
    let agent = this.#agents.get(key)
    if (!agent) {
      const secured = {
        allowH2: true,
        preferH2: true,
        rejectUnauthorized: trust.verify,
        secureContext: secureContext(trust),
        timeout: this.#limits.connectMs,
        autoSelectFamily: true,
      }
      const toNamed = notingCertificates(buildConnector(secured))
      const toOthers = notingCertificates(buildConnector({ ...secured, lookup: withinLimits }))
      const connector: Connect = (options, callback) => {
        const host = options.host ?? options.hostname
        const proxy = this.#proxies(new URL(`${options.protocol}//${host}`))
        const named = this.#named.has(host)
        if (proxy !== undefined) this.#throughTunnel(proxy, toNamed, options, callback)
        else
          (named ? toNamed : toOthers)(options, (...result) => {
            const address = result[1]?.remoteAddress ?? ''
            if (named || !isOffLimits(address)) return callback(...result)
            // nothing was sent: what looks names up has let it pass
            result[1]?.destroy()
            callback(offLimits(options.hostname, address), null)
          })
      }
      agent = new Agent({
        allowH2: true,
        connections: this.#limits.connections,
        maxHeaderSize: HEADERS_MAX_BYTES,
        keepAliveTimeout: KEEP_ALIVE_MS,
        // undici 8.12 checks the setting below, but sends this older option
        initialWindowSize: STREAM_WINDOW_BYTES,
        h2Options: {
          maxConcurrentStreams: this.#limits.streams * 2,
          connectionWindowSize: CONNECTION_WINDOW_BYTES,
          settings: { initialWindowSize: STREAM_WINDOW_BYTES },
        },
        connect: (options, callback) =>
          connector(options, (...result) => {
            const [error, socket] = result
            if (error !== null) return callback(error, null)
            this.#onConnect()
            const { streams, connections } = this.#limits
            const h2 = 'alpnProtocol' in socket && socket.alpnProtocol === 'h2'
            const { origin } = new URL(`${options.protocol}//${options.host ?? `${options.hostname}:${options.port}`}`)
            this.gate(origin).limit = h2 ? streams : connections
            if (this.#protocols.size >= GATES_MAX) this.#protocols.clear()
            this.#protocols.set(origin, h2 ? 'HTTP/2' : 'HTTP/1.1')
            return callback(null, socket)
          }),
      })
      this.#agents.set(key, agent)
    }
    return agent
  }

  /** Connections to the proxy come from `HTTPS_PROXY`, which names it: it may be wherever it is. */
  #throughTunnel(
    proxy: ForwardProxy,
    secure: Connect,
    options: buildConnector.Options,
    callback: buildConnector.Callback,
  ) {
    const { url, authorization } = proxy
    const key = `${url.origin} ${authorization ?? ''}`
    let tunnels = this.#tunnels.get(key)
    if (tunnels === undefined) {
      tunnels = new Tunnels(proxy, this.#toProxy(), this.#limits.connectMs)
      this.#tunnels.set(key, tunnels)
    }
    const host = options.host ?? options.hostname
    tunnels.open(options.port ? host : `${host}:443`).then(
      (socket) => secure({ ...options, httpSocket: socket as Socket }, callback),
      (error) => callback(error, null),
    )
  }

  #forwarder(): Agent {
    this.#forwarding ??= new Agent({
      connections: this.#limits.connections,
      maxHeaderSize: HEADERS_MAX_BYTES,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connect: (options, callback) =>
        this.#toProxy()(options, (...result) => {
          if (result[0] === null) this.#onConnect()
          callback(...result)
        }),
    })
    return this.#forwarding
  }

  #toProxy(): Connect {
    const trust = { verify: true, authorities: [], identities: [] }
    return buildConnector({
      allowH2: false,
      secureContext: secureContext(trust),
      timeout: this.#limits.connectMs,
      autoSelectFamily: true,
    })
  }

  /** Ends all connections; requests under way fail with `aborted`. */
  async close(): Promise<void> {
    this.#closed = true
    const agents = [...this.#agents.values(), ...(this.#forwarding ? [this.#forwarding] : [])]
    await Promise.all([
      ...agents.map((agent) => agent.destroy()),
      ...[...this.#tunnels.values()].map((each) => each.close()),
    ])
  }
}

function offLimits(host: string, address: string): Failure {
  const what = host === address ? `${host} is not asked` : `${host} is not asked at ${address}`
  return Failure.denied(what, { why: 'it is a link-local address, or one of cloud metadata', fix: NAME_IT })
}

/** Looks a name up as ever; what is off limits is left out before anything is connected to. */
const withinLimits: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, found) => {
    if (error !== null) return callback(error, [])
    const within = found.filter(({ address }) => !isOffLimits(address))
    const [first] = within
    if (first === undefined) return callback(offLimits(hostname, found[0]?.address ?? 'no address'), [])
    if (options.all === true) callback(null, within)
    else callback(null, first.address, first.family)
  })
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
