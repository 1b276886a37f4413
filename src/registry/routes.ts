// The ways that connections take: straight to a host or through a forward proxy, and never to an address that is off limits.
import type { Socket } from 'node:net'
import { createSecureContext, type SecureContext } from 'node:tls'
import type { buildConnector } from 'undici'
import { Failure } from '../errors.ts'
import { Names } from './names.ts'
import { isOffLimits, NAME_IT } from './off-limits.ts'
import type { ForwardProxy, Proxies } from './proxies.ts'
import { notingCertificates } from './tls-failure.ts'
import { systemAuthorities, type Trust } from './trust.ts'
import { Tunnels } from './tunnel.ts'
import { makeConnector } from './undici.ts'

/** How requests to an origin go out. */
export interface Way {
  /** Who is connected to. */
  origin: string
  /** Before their paths. */
  prefix: string
  /** For a proxy that forwards the requests itself. */
  headers: Readonly<Record<string, string>>
  /** That one. */
  proxy: ForwardProxy | undefined
}

export type Connect = buildConnector.connector

/** Knows the proxies, and which hosts the user's settings name. */
export class Routes {
  readonly #proxies: Proxies
  readonly #connectMs: number
  /** `host[:port]` that settings name: these alone may have addresses that are off limits. */
  readonly #named = new Set<string>()
  /** By the proxy's URL and credentials. */
  readonly #tunnels = new Map<string, Tunnels>()
  readonly #names = new Names()

  constructor(proxies: Proxies, connectMs: number) {
    this.#proxies = proxies
    this.#connectMs = connectMs
  }

  named(host: string): void {
    // as URLs of either scheme write it, which leave out a default port
    for (const scheme of ['https:', 'http:']) {
      if (URL.canParse(`${scheme}//${host}`)) this.#named.add(new URL(`${scheme}//${host}`).host)
    }
  }

  /** The same for all URLs of an origin. @throws Failure denied (an address that is off limits), usage (no proxy's URL) */
  way(url: URL): Way {
    // as literals also before a proxy, which looks names up itself
    if (isOffLimits(url.hostname) && !this.#named.has(url.host)) throw offLimits(url.hostname, url.hostname)
    const proxy = this.#proxies(url)
    if (proxy === undefined || url.protocol === 'https:') {
      return { origin: url.origin, prefix: '', headers: {}, proxy: undefined }
    }
    const { authorization } = proxy
    return {
      origin: proxy.url.origin,
      prefix: url.origin, // RFC 9112 3.2.2
      headers: { host: url.host, ...(authorization === undefined ? {} : { 'proxy-authorization': authorization }) },
      proxy,
    }
  }

  /** Connects to hosts, secured as `trust` says; through tunnels where a proxy is named. `http2`: where they speak it. */
  toHosts(trust: Trust, http2: boolean): Connect {
    const secured = {
      allowH2: http2,
      preferH2: http2,
      rejectUnauthorized: trust.verify,
      secureContext: secureContext(trust),
      timeout: this.#connectMs,
      autoSelectFamily: true,
    }
    const connector = (may: (address: string) => boolean) =>
      notingCertificates(makeConnector({ ...secured, lookup: this.#names.lookup(may, offLimits) }))
    const toNamed = connector(() => true)
    // what is off limits is left out before anything is connected to
    const toOthers = connector((address) => !isOffLimits(address))
    return (options, callback) => {
      const host = options.host ?? options.hostname
      const proxy = this.#proxies(new URL(`${options.protocol}//${host}`))
      if (proxy !== undefined) return this.#throughTunnel(proxy, toNamed, options, callback)
      if (this.#named.has(host)) return toNamed(options, callback)
      toOthers(options, (...result) => {
        const address = result[1]?.remoteAddress ?? ''
        if (!isOffLimits(address)) return callback(...result)
        result[1]?.destroy()
        callback(offLimits(options.hostname, address), null)
      })
    }
  }

  /** Connects to a proxy itself, which the user's environment names: it may be wherever it is. */
  toProxy(): Connect {
    const trust = { verify: true, authorities: [], identities: [] }
    return makeConnector({
      allowH2: false,
      secureContext: secureContext(trust),
      timeout: this.#connectMs,
      autoSelectFamily: true,
    })
  }

  #throughTunnel(
    proxy: ForwardProxy,
    secure: Connect,
    options: buildConnector.Options,
    callback: buildConnector.Callback,
  ): void {
    const { url, authorization } = proxy
    const key = `${url.origin} ${authorization ?? ''}`
    let tunnels = this.#tunnels.get(key)
    if (tunnels === undefined) {
      tunnels = new Tunnels(proxy, this.toProxy(), this.#connectMs)
      this.#tunnels.set(key, tunnels)
    }
    const host = options.host ?? options.hostname
    tunnels.open(options.port ? host : `${host}:443`).then(
      (socket) => secure({ ...options, httpSocket: socket as Socket }, callback), // TLS takes any stream
      (error) => callback(error, null),
    )
  }

  /** Ends connections to proxies; those through tunnels are the agents' to end. */
  async close(): Promise<void> {
    await Promise.all([...this.#tunnels.values()].map((each) => each.close()))
  }
}

function offLimits(host: string, address: string): Failure {
  const what = host === address ? `${host} is not asked` : `${host} is not asked at ${address}`
  return Failure.denied(what, { why: 'it is a link-local address, or one of cloud metadata', fix: NAME_IT })
}

/** Each takes the system's hundred certificates. */
const contexts = new WeakMap<Trust, SecureContext>()

function secureContext(trust: Trust): SecureContext {
  const context = contexts.get(trust) ?? makeContext(trust)
  contexts.set(trust, context)
  return context
}

function makeContext({ verify, authorities, identities }: Trust): SecureContext {
  const [first] = identities
  return createSecureContext({
    ca: [...(verify ? systemAuthorities() : []), ...authorities], // of no use where any certificate will do
    ...(first ? { cert: identities.map((each) => each.cert), key: identities.map((each) => each.key) } : {}),
  })
}
