// Connections through a forward proxy: CONNECT for HTTPS, so that TLS is spoken with the registry and the proxy sees its name alone.
import type { Duplex } from 'node:stream'
import type { buildConnector } from 'undici'
import { Failure } from '../errors.ts'
import type { ForwardProxy } from './proxies.ts'
import { passing, unanswered } from './retry.ts'
import { Pool } from './undici.ts'

/** Opens tunnels through one proxy. */
export class Tunnels {
  readonly #proxy: ForwardProxy
  readonly #pool: Pool
  readonly #connectMs: number

  /** @param connect connections to the proxy itself */
  constructor(proxy: ForwardProxy, connect: buildConnector.connector, connectMs: number) {
    this.#proxy = proxy
    this.#connectMs = connectMs
    this.#pool = new Pool(proxy.url.origin, { connect })
  }

  /** A stream to `host:port`. @throws Failure denied, unavailable, timeout; or what the network throws */
  async open(host: string): Promise<Duplex> {
    const { authorization, url } = this.#proxy
    const signal = AbortSignal.timeout(this.#connectMs)
    try {
      const { socket, statusCode } = await this.#pool.connect({
        path: host,
        headers: { host, ...(authorization === undefined ? {} : { 'proxy-authorization': authorization }) },
        signal,
      })
      if (statusCode === 200) return socket
      socket.on('error', () => {}).destroy() // it said what there was to say
      throw refusedBy(this.#proxy, statusCode, host)
    } catch (error) {
      if (error instanceof Failure) throw error
      if (signal.aborted)
        throw silent(Failure.timeout(`proxy ${url.host}: no tunnel to ${host} within ${this.#connectMs} ms`))
      throw silent(Failure.unavailable(`proxy ${url.host}: no tunnel to ${host}`, { cause: error }))
    }
  }

  async close(): Promise<void> {
    await this.#pool.destroy()
  }
}

const silent = (failure: Failure): Failure => passing(unanswered(failure))

/** What a proxy's own refusal means. */
export function refusedBy({ url, authorization }: ForwardProxy, status: number, host: string): Failure {
  const what = `proxy ${url.host} refuses ${host} with status ${status}`
  if (status === 407) {
    const fix = 'Name it with its credentials: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT, and HTTP_PROXY likewise.'
    const why = authorization === undefined ? 'it wants credentials, and there are none' : 'it wants other credentials'
    return Failure.denied(what, { why, fix })
  }
  const fix = 'Have the proxy let it through, or name the host in NO_PROXY.'
  return status >= 500 ? passing(Failure.unavailable(what, { fix })) : Failure.denied(what, { fix })
}
