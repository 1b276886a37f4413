// Requests to a repository that change something: with authorization, renewed when it is refused, to that registry alone.
import { Failure } from '../errors.ts'
import { parseChallenge } from './challenge.ts'
import type { Answer, Client, Query } from './client.ts'
import type { Endpoint } from './hosts.ts'
import { isRefusal, notLetIn } from './refusal.ts'
import { type Host, rootOf } from './repository.ts'
import { countRetry, isPassing, retry } from './retry.ts'
import { speaksHttp } from './tls-failure.ts'

/** None or an old token, then a new one, then one from other credentials. */
const REFUSALS_MAX = 3

export interface PushRequest {
  method: 'HEAD' | 'POST' | 'PUT' | 'PATCH'
  url: URL
  headers?: Readonly<Record<string, string>>
  /** Called again when it is to be sent again. */
  body?: () => AsyncIterable<Uint8Array>
  /** Names the thing in messages. */
  what: string
  signal: AbortSignal | undefined
}

/** What they share. */
export class PushRequests {
  readonly #endpoint: Endpoint
  readonly #host: Pick<Host, 'authority' | 'trust' | 'scheme'>
  readonly #client: Client
  #root: Promise<URL> | undefined

  /** @param host whose authority asks for the right to push */
  constructor(endpoint: Endpoint, host: Pick<Host, 'authority' | 'trust' | 'scheme'>, client: Client) {
    this.#endpoint = endpoint
    this.#host = host
    this.#client = client
  }

  /** Of something below the repository. @throws Failure unavailable, timeout, denied, aborted: nobody answers there */
  async url(path: string, signal: AbortSignal | undefined): Promise<URL> {
    this.#root ??= this.#findRoot(signal).catch((error) => {
      this.#root = undefined // the next one asks again
      throw error
    })
    return new URL(`${this.#endpoint.repository}/${path}`, await this.#root)
  }

  /** A step that may be done again from its beginning after a failure that passes. */
  async retry<T>(step: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const { counters, limits } = this.#client
    return await retry(step, limits, signal, (failure) => countRetry(counters, failure))
  }

  /**
   * Hands the answer to `use`, once the registry does not ask any more who we are.
   * @throws Failure denied, unavailable, timeout, aborted; or what `use` or the body throws
   */
  async send<T>(request: PushRequest, use: (answer: Answer) => Promise<T>): Promise<T> {
    const { authority } = this.#host
    const { host, repository } = this.#endpoint
    const { url, what, signal } = request
    // a registry may have storage take the bytes: it is shown nothing
    const isOwn = url.origin === (await this.url('', signal)).origin
    let authorization = isOwn ? await authority.authorization(repository, signal) : undefined
    for (let refusals = 0; ; refusals++) {
      const used = authorization
      const outcome = await this.#client.send(this.#query(request, used), async (answer) => {
        const { status } = answer
        if (isOwn && answer.own && isRefusal(status)) {
          return { refused: { status, challenge: parseChallenge(answer.header('www-authenticate')) } }
        }
        if (isOwn) authority.accepted(repository, used)
        return { value: await use(answer) }
      })
      if ('value' in outcome) return outcome.value
      const { refused } = outcome
      if (refusals < REFUSALS_MAX) authorization = await authority.refused(repository, used, refused, signal)
      if (refusals >= REFUSALS_MAX || authorization === undefined) {
        throw notLetIn(what, host, refused.status, used !== undefined, 'push')
      }
    }
  }

  #query({ method, url, headers = {}, body, signal }: PushRequest, authorization: string | undefined): Query {
    const { commitMs } = this.#client.limits
    return {
      method,
      url,
      headers: { ...headers, ...(authorization === undefined ? {} : { authorization }) },
      ...(body === undefined ? {} : { body: body() }),
      ...(method === 'PUT' || method === 'PATCH' ? { lasts: true, stallMs: commitMs } : {}),
      trust: this.#host.trust,
      kind: 'upload',
      priority: 'demand',
      signal,
      // what is sent goes where it was meant to go, or nowhere
      follow: method === 'HEAD',
    }
  }

  /** `SCHEME://SERVER/v2/`, as a rule; an insecure registry may speak HTTP alone. */
  async #findRoot(signal: AbortSignal | undefined): Promise<URL> {
    const { insecure } = this.#endpoint
    const at = (scheme: string) => new URL(`${rootOf(this.#endpoint, scheme)}/`)
    const ask = (url: URL) => {
      const query = { method: 'GET', url, headers: {}, trust: this.#host.trust, priority: 'demand', signal } as const
      return this.#client.send({ ...query, kind: 'other', follow: false }, async () => url)
    }
    if (!insecure) return at('https:')
    if (this.#host.scheme !== undefined) return at(this.#host.scheme)
    return await ask(at('https:')).catch((error: unknown) => {
      if (error instanceof Failure && (isPassing(error) || speaksHttp(error))) return ask(at('http:'))
      throw error
    })
  }
}
