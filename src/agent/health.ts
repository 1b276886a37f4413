// What monitoring asks over HTTP: /metrics for Prometheus, /healthz and /readyz for whoever starts and restarts the agent.
//
//   starting ──serving──▶ serving ──leaving──▶ leaving
//   /healthz  200           200 if the mount answers      200
//   /readyz   503           200 if engines see it, too    503
import type { Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, Failure } from '../errors.ts'
import { log } from './log.ts'

export interface HealthParts {
  /** @throws Failure: the native session does not answer */
  alive(): Promise<void>
  /** Why engines find nothing, a sentence; undefined: they do. */
  whyNotReady(): Promise<string | undefined>
  metrics(): Promise<string>
}

export interface Health {
  /** Where it listens: HOST:PORT. */
  readonly address: string
  serving(parts: HealthParts): void
  leaving(): void
  close(): Promise<void>
}

export interface MetricsAddress {
  host: string
  port: number
}

const LOOPBACK = '127.0.0.1'
const PORT_MAX = 65_535
/** Whoever scrapes keeps one; a probe is over at once. */
const CONNECTIONS_MAX = 32
/** A request is a line and some headers. */
const REQUEST_MS = 5_000
const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'
const TEXT_TYPE = 'text/plain; charset=utf-8'

/** PORT on the loopback address, or ADDRESS:PORT; an IPv6 address is in brackets. @throws Failure usage */
export function parseAddress(text: string): MetricsAddress {
  const [, bracketed, plain, digits] = /^(?:(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+)):)?(\d{1,5})$/.exec(text) ?? []
  const port = Number(digits)
  if (digits === undefined || port > PORT_MAX) {
    throw Failure.usage(`--metrics ${JSON.stringify(text)} is no address`, {
      fix: `Write PORT, ADDRESS:PORT or [ADDRESS]:PORT: --metrics ${LOOPBACK}:9811.`,
    })
  }
  return { host: bracketed ?? plain ?? LOOPBACK, port }
}

/** Answers at once; of what is not there yet it says so. Keeps no process alive. @throws Failure system */
export async function listenHealth({ host, port }: MetricsAddress): Promise<Health> {
  // a seventh of an agent's start is spent on loading it, and most are not monitored
  const { createServer } = await import('node:http')
  let parts: HealthParts | undefined
  let state: 'starting' | 'serving' | 'leaving' = 'starting'
  const answers: Record<string, () => Promise<Page>> = {
    '/healthz': async () => {
      if (state === 'serving') await parts?.alive()
      return { status: 200, type: TEXT_TYPE, text: `${state}\n` }
    },
    '/readyz': async () => {
      const why = state === 'serving' ? await parts?.whyNotReady() : `the agent is ${state}`
      if (why !== undefined) throw Failure.unavailable(why)
      return { status: 200, type: TEXT_TYPE, text: 'ready\n' }
    },
    '/metrics': shared(async () => {
      if (parts === undefined) throw Failure.unavailable('the agent is starting')
      return { status: 200, type: METRICS_TYPE, text: await parts.metrics() }
    }),
  }
  const server = createServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS }, (request, response) => {
    const [path = ''] = (request.url ?? '').split('?')
    const isRead = request.method === 'GET' || request.method === 'HEAD'
    const answer = isRead && Object.hasOwn(answers, path) ? answers[path] : undefined
    request.resume() // a body is of no use
    if (answer === undefined) send(response, { status: isRead ? 404 : 405, type: TEXT_TYPE, text: 'nothing is here\n' })
    else void respond(response, answer) // never rejects
  })
  server.maxConnections = CONNECTIONS_MAX
  server.on('clientError', (_, socket) => socket.destroy())
  await listening(server, host, port)
  server.on('error', (error) => log(`metrics: ${describe(error)}`))
  server.unref()
  const bound = server.address() as AddressInfo // it listens at an IP address
  return {
    address: bound.family === 'IPv6' ? `[${bound.address}]:${bound.port}` : `${bound.address}:${bound.port}`,
    serving(of) {
      parts = of
      state = 'serving'
    },
    leaving() {
      state = 'leaving'
    },
    async close() {
      server.closeAllConnections()
      await new Promise<void>((done) => server.close(() => done()))
    },
  }
}

interface Page {
  status: number
  type: string
  text: string
}

async function respond(response: ServerResponse, answer: () => Promise<Page>): Promise<void> {
  try {
    send(response, await answer())
  } catch (error) {
    send(response, { status: 503, type: TEXT_TYPE, text: `${describe(error)}\n` })
  }
}

/** What whoever asks gets, as plain text that no browser takes for anything else. */
function send(response: ServerResponse, { status, type, text }: Page): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(text),
    'x-content-type-options': 'nosniff',
  })
  response.end(response.req.method === 'HEAD' ? undefined : text)
}

async function listening(server: Server, host: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject).once('listening', resolve)
  server.listen(port, host)
  await promise.catch((cause) => {
    throw Failure.system(`cannot listen at ${host}:${port} for --metrics`, {
      cause,
      fix: 'Name another address, or end what listens there.',
    })
  })
}

/** Whoever asks while somebody else's answer is made gets that one. */
export function shared<T>(make: () => Promise<T>): () => Promise<T> {
  let making: Promise<T> | undefined
  return () =>
    (making ??= make().finally(() => {
      making = undefined
    }))
}
