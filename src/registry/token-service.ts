// Asking a token service for access to repositories (distribution's token specification; RFC 6749 for refresh tokens).

import { Failure } from '../errors.ts'
import { readAll } from './body.ts'
import type { Challenge } from './challenge.ts'
import type { Client, Query } from './client.ts'
import type { Credentials, Login } from './login.ts'
import { isOffLimits } from './off-limits.ts'
import { countRetry, passing, pauseAskedMs, retry } from './retry.ts'
import type { Trust } from './trust.ts'

const TOKEN_ANSWER_MAX_BYTES = 1 << 20
/** The specification's default where a token service names no lifetime. */
const TOKEN_LIFETIME_S = 60
/** A token is renewed that long before its end, or a tenth of its life before, whichever is shorter. */
const TOKEN_MARGIN_MS = 10_000

export interface AccessToken {
  /** The Authorization header. */
  authorization: string
  /** On the clock of performance.now(). */
  until: number
}

/** A token service's word that it gives none. */
export interface NoToken {
  refusal: Failure
  status: number
}

/** For whom a token is asked. */
export interface Asking {
  client: Client
  /** The registry, `host[:port]`, as auth files name it. */
  host: string
  insecure: boolean
  trust: (host: string) => Promise<Trust>
}

/**
 * A token for `scopes`, or the service's word that `credentials` (undefined: none) do not suffice.
 * @throws Failure denied (a realm that is not asked, another refusal), unavailable, timeout, aborted
 */
export async function askForToken(
  { client, host, insecure, trust }: Asking,
  challenge: Challenge & { scheme: 'bearer' },
  scopes: readonly string[],
  credentials: Credentials | undefined,
): Promise<AccessToken | NoToken> {
  const query = tokenQuery(realm(challenge.realm, host, insecure), challenge.service, scopes, credentials)
  const { url, method } = query
  const ask = () =>
    client.send({ ...query, trust, kind: 'token', priority: 'demand', follow: false }, async (answer) => {
      client.counters.tokens++
      const { status } = answer
      if (status !== 200) client.counters.tokensRefused++
      if (status === 429 || status >= 500) {
        const failure = Failure.unavailable(`token service ${url.host}: status ${status}`)
        throw passing(failure, pauseAskedMs(answer.header))
      }
      if (status !== 200) {
        const refused = refusal(url.host, status, host, credentials)
        // RFC 6749 5.2: a refresh token that is not valid gets 400
        if (status === 401 || status === 403 || (method === 'POST' && status === 400))
          return { refusal: refused, status }
        throw refused
      }
      const bytes = await readAll(answer, TOKEN_ANSWER_MAX_BYTES, `the answer of token service ${url.host}`)
      return parseToken(Buffer.from(bytes).toString('utf8'), url.host, performance.now())
    })
  return await retry(ask, client.limits, undefined, (failure) => countRetry(client.counters, failure))
}

/** A refresh token is posted, whatever else is known is part of the URL and of the Authorization header. */
function tokenQuery(
  url: URL,
  service: string | undefined,
  scopes: readonly string[],
  credentials: Credentials | undefined,
): Pick<Query, 'url' | 'method' | 'headers' | 'body'> {
  const parameters = new URLSearchParams(service === undefined ? {} : { service })
  const headers: Record<string, string> = { accept: 'application/json' }
  if (credentials !== undefined && 'identityToken' in credentials) {
    // RFC 6749 3.3: one parameter, its values apart by spaces
    parameters.set('scope', scopes.join(' '))
    parameters.set('grant_type', 'refresh_token')
    parameters.set('client_id', 'lazylayer')
    parameters.set('refresh_token', credentials.identityToken)
    headers['content-type'] = 'application/x-www-form-urlencoded'
    return { url, method: 'POST', headers, body: parameters.toString() }
  }
  for (const scope of scopes) parameters.append('scope', scope)
  for (const [name, value] of parameters) url.searchParams.append(name, value)
  if (credentials !== undefined) headers.authorization = basic(credentials)
  return { url, method: 'GET', headers }
}

/** RFC 7617. */
export function basic(login: Login): string {
  return `Basic ${Buffer.from(`${login.username}:${login.password}`, 'utf8').toString('base64')}`
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

function parseToken(text: string, service: string, now: number): AccessToken {
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
