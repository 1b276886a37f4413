// A registry that misbehaves on demand: authentication, and faults by path and number of the request.
import { createServer } from 'node:http'
import { createSecureServer } from 'node:http2'
import { createServer as createTlsServer } from 'node:https'
import { setTimeout as pause } from 'node:timers/promises'
import { type Certificate, selfSigned } from '../../src/build/certificate.ts'
import {
  answer,
  attach,
  headerOf,
  type Listening,
  listen,
  listener,
  type RegistryAnswer,
  type RegistryRequest,
  type RegistryResponse,
  refusal,
  type Shelf,
  send,
} from '../../src/build/registry.ts'
import { type Fault, goAway, paced, reset, tampered } from './faults.ts'
import type { Uploads } from './uploads.ts'

/** Who is let in. */
export type Auth =
  | {
      scheme: 'basic'
      username: string
      password: string
      /** What repositories answer to strangers, without a challenge, which /v2/ alone has. Default: 401, with one. */
      strangers?: 401 | 403 | 404
    }
  | {
      scheme: 'bearer'
      /** Undefined: anybody gets a token. */
      users?: ReadonlyMap<string, string>
      identityTokens?: readonly string[]
      expiresS?: number
      /** Default: this registry's /token. */
      realm?: string
      strangers?: 401 | 403 | 404
      /** Before a token is handed out. */
      tokenDelayMs?: number
    }

/** A request as the registry saw it. */
export interface Seen {
  method: string
  path: string
  kind: 'manifest' | 'blob' | 'token' | 'other'
  protocol: 'h1' | 'h2'
  /** Bytes that the client lets be under way for one stream (HTTP/2), else 0. */
  window: number
  /** Number of the connection, from 1. */
  connection: number
  authorization: string | undefined
  range: string | undefined
  header: (name: string) => string | undefined
  body: string
  status: number
  /** Body bytes handed to the network. */
  sent: number
}

/** What it serves, and how. */
export interface FakeOptions {
  shelf: Shelf
  /** Default: true. */
  tls?: boolean
  /** Default: true (with TLS). */
  http2?: boolean
  /** Streams that it lets a client have at once over HTTP/2. Default: as many as it likes. */
  streams?: number
  auth?: Auth
  faults?: Fault[]
  /** Takes what is pushed. Default: nothing is. */
  uploads?: Uploads
  certificate?: Certificate
}

/** A running registry, what it has seen, and what it does next. */
export interface FakeRegistry extends Listening {
  /** The certificate that it shows, and its own authority. */
  cert: string
  seen: Seen[]
  /** Replaced by tests as they go on. */
  faults: Fault[]
  auth: Auth | undefined
  /** All tokens handed out so far are refused from now on. */
  revoke(): void
  /** Requests of that kind so far. */
  count(kind: Seen['kind']): number
}

let shared: Promise<Certificate> | undefined

/** One certificate for all fakes of a test file. */
export function testCertificate(): Promise<Certificate> {
  shared ??= selfSigned(['127.0.0.1', 'localhost'])
  return shared
}

/** Listens on the loopback until it is closed. */
export async function startRegistry(options: FakeOptions): Promise<FakeRegistry> {
  const certificate = options.certificate ?? (await testCertificate())
  const seen: Seen[] = []
  const connections = new Map<object, number>()
  const hits = new Map<Fault, number>()
  const tokens = new Map<string, readonly string[]>()
  let issued = 0

  const handle = async (request: RegistryRequest, response: RegistryResponse): Promise<void> => {
    const header = headerOf(request)
    const path = request.url ?? ''
    const session: object =
      request.httpVersion === '2.0' && 'stream' in request ? (request.stream.session ?? {}) : request.socket
    if (!connections.has(session)) connections.set(session, connections.size + 1)
    const entry: Seen = {
      method: request.method ?? '',
      path,
      kind: kind(path),
      protocol: request.httpVersion === '2.0' ? 'h2' : 'h1',
      window: ('stream' in request && request.stream.session?.remoteSettings.initialWindowSize) || 0,
      connection: connections.get(session) ?? 0,
      authorization: header('authorization'),
      range: header('range'),
      header,
      body: '',
      status: 0,
      sent: 0,
    }
    seen.push(entry)
    const parts: Uint8Array[] = []
    for await (const part of request) parts.push(part as Uint8Array)
    const body = Buffer.concat(parts)
    if (!path.includes('/uploads/')) entry.body = body.toString('utf8')
    const faults = registry.faults.filter((fault) => {
      if (!fault.match.test(path) || (fault.over ?? entry.protocol) !== entry.protocol) return false
      const hit = (hits.get(fault) ?? 0) + 1
      hits.set(fault, hit)
      return fault.nth === undefined ? hit <= (fault.until ?? hit) : hit === fault.nth
    })
    const fault: Partial<Fault> = Object.assign({}, ...faults)
    if (fault.delayMs !== undefined) await pause(fault.delayMs)
    await fault.held
    if (fault.rst !== undefined && fault.cutAfter === undefined) return reset(response, fault.rst)
    if (fault.reset || fault.goaway === 'refuse') {
      goAway(request, fault, true)
      return
    }
    const reply = await tampered(await respond(entry, body), fault, entry, options.shelf)
    entry.status = reply.status
    try {
      await send({ ...reply, body: paced(reply.body, fault, entry, () => goAway(request, fault, false)) }, response)
    } catch {
      reset(response, fault.rst)
    }
  }

  const respond = async (entry: Seen, body: Uint8Array): Promise<RegistryAnswer> => {
    const { auth } = registry
    if (auth?.scheme === 'bearer' && entry.kind === 'token') return await token(auth, entry)
    if (auth !== undefined && !allowed(auth, entry)) {
      const strangers = auth.strangers !== undefined && entry.path !== '/v2/' ? auth.strangers : undefined
      if (strangers !== undefined) return refusal(strangers, 'NAME_UNKNOWN', 'nothing for you')
      const { headers, ...rest } = refusal(401, 'UNAUTHORIZED', 'authentication required')
      return { ...rest, headers: { ...headers, 'www-authenticate': challenge(auth, entry) } }
    }
    const pushed = options.uploads?.answer(entry, body)
    return pushed ?? (await answer(options.shelf, entry.method, entry.path, entry.header))
  }

  const allowed = (auth: Auth, entry: Seen): boolean => {
    const { authorization = '' } = entry
    if (auth.scheme === 'basic') return authorization === basic(auth.username, auth.password)
    const scopes = tokens.get(authorization.replace(/^Bearer /, ''))
    const [wanted = '', right = ''] = scopeOf(entry).split(/:(?=[^:]*$)/)
    return (
      scopes?.some(
        (each) =>
          each.startsWith(`${wanted}:`) &&
          each
            .slice(wanted.length + 1)
            .split(',')
            .includes(right.split(',').at(-1) ?? ''),
      ) ?? false
    )
  }

  const challenge = (auth: Auth, entry: Seen): string => {
    if (auth.scheme === 'basic') return 'Basic realm="registry"'
    const realm = auth.realm ?? `${registry.url}/token`
    return `Bearer realm="${realm}",service="fake",scope="${scopeOf(entry)}"`
  }

  const token = async (auth: Auth & { scheme: 'bearer' }, entry: Seen): Promise<RegistryAnswer> => {
    if (auth.tokenDelayMs !== undefined) await pause(auth.tokenDelayMs)
    const query =
      entry.method === 'POST' ? new URLSearchParams(entry.body) : new URL(entry.path, 'http://x').searchParams
    const known =
      entry.method === 'POST'
        ? (auth.identityTokens ?? []).includes(query.get('refresh_token') ?? '')
        : auth.users === undefined ||
          [...auth.users].some(([username, password]) => entry.authorization === basic(username, password))
    if (!known) return refusal(401, 'UNAUTHORIZED', 'wrong credentials')
    const value = `token-${++issued}`
    tokens.set(
      value,
      query.getAll('scope').flatMap((each) => each.split(' ')),
    )
    const bytes = Buffer.from(JSON.stringify({ token: value, expires_in: auth.expiresS ?? 300 }))
    return {
      status: 200,
      headers: { 'content-type': 'application/json' },
      body: (async function* () {
        yield bytes
      })(),
    }
  }

  const serve = listener(handle)
  const listening =
    options.tls === false
      ? await attach(createServer(serve), 'http')
      : options.http2 === false
        ? await attach(createTlsServer({ ...certificate }, serve), 'https')
        : options.streams === undefined
          ? await listen(handle, certificate)
          : await attach(
              createSecureServer(
                { ...certificate, allowHTTP1: true, settings: { maxConcurrentStreams: options.streams } },
                serve,
              ),
              'https',
            )
  const registry: FakeRegistry = {
    ...listening,
    cert: certificate.cert,
    seen,
    faults: options.faults ?? [],
    auth: options.auth,
    revoke: () => tokens.clear(),
    count: (kind) => seen.filter((each) => each.kind === kind).length,
  }
  return registry
}

function kind(path: string): Seen['kind'] {
  if (path.startsWith('/token')) return 'token'
  if (path.includes('/manifests/')) return 'manifest'
  return path.includes('/blobs/') ? 'blob' : 'other'
}

function scopeOf({ method, path }: Seen): string {
  const right = method === 'GET' || method === 'HEAD' ? 'pull' : 'pull,push'
  return `repository:${/^\/v2\/(.+?)\/(?:manifests|blobs)\//.exec(path)?.[1] ?? ''}:${right}`
}

function basic(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}
