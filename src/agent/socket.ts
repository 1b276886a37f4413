// The agent's socket: one JSON line asks, one JSON line answers. Only the user who runs the agent can open it (mode 0600).

import { mkdir, readdir, realpath, unlink } from 'node:fs/promises'
import { createConnection, createServer, type Server } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { within } from '../engines/machine.ts'
import { type Code, describe, Failure } from '../errors.ts'
import type { Credentials } from '../registry/login.ts'
import type { FilledImage } from '../snapshotter/fill.ts'
import type { DiffIdPolicy } from '../stores/diff-id-policy.ts'
import type { ListOutcome } from '../stores/outcome.ts'
import { PROVE, type Prove } from '../stores/read-whole.ts'
import { isAgentSocket, socketFor } from './agent-places.ts'
import type { Distribution, Gauge, Totals } from './gauges.ts'
import { hungAgent, hungFailure } from './hung.ts'

export type AgentRequest = { op: 'status' } | { op: 'unmount' } | { op: 'upgrade' } | ListRequest | FillRequest
export type AgentAnswer =
  | { ok: true; status?: Status; outcome?: ListOutcome; filled?: readonly FilledImage[] }
  | Refusal

export interface Refusal {
  ok: false
  what: string
  /** Of the Failure, if it is one. */
  code?: Code
  /** What to do, in a sentence, where that is known. */
  fix?: string
  late?: boolean
}

/** Asks a store to list an image's layers; answered when they are, or when it took too long (`late`): then it goes on. */
export interface ListRequest {
  op: 'list'
  reference: string
  /** For the reference's repository. */
  credentials?: Credentials
  /** What of it is read whole before (default: as little as an engine can wait for). */
  prove?: Prove
  /** Nothing is begun: the answer is what came of the last listing for which layers were read whole; no outcome: there was none. */
  known?: true
}

/** Asks for all of an image in containerd's content store; answered as a listing is. */
export interface FillRequest {
  op: 'fill'
  image: string
  /** Undefined: each that has a lazy layer. */
  namespace?: string
}

/** Whose DiffIDs a store believes (`serve --diffid`, and --trust as it was given), and whether it names layers by them only (--diffid-only). */
export interface DiffIds {
  policy: DiffIdPolicy
  trust: readonly string[]
  only: boolean
}

export interface Status extends Totals {
  pid: number
  version: string
  /** The mounted directory. */
  root: string
  /** `serve`, or the reference of a mounted image. */
  serves: string
  /** The rung of the ladder of mounts, and why it is not a higher one. */
  mount: string
  why?: string
  /** Whether engines in the mount namespace of process 1, usually the host's, see it; and why not, or why that is unknown. */
  seen?: 'yes' | 'no' | 'unknown'
  unseen?: string
  /**
   * kind: `fuse`, our server answers; `erofs`, the kernel does, and our server for what is missing; `complete`, the kernel alone, from
   * the cache files. Of a merged image some devices may be complete and others not.
   */
  mounts: readonly { dir: string; kind: string; complete?: number; devices?: number }[]
  /** A store's. */
  diffid?: DiffIds
  /** Where a store's agent answers monitoring, HOST:PORT, and why it says that it is not ready. */
  metrics?: { address: string; unready?: string }
  layers: number
  /** Registries, or blobs of them, that give nothing now, and why: reads of them fail at once. A line each. */
  outages?: readonly string[]
  /** What it takes on disk, measured within the last minute; and of that, what was set aside. */
  cache?: { dir: string; bytes: number; aside: number }
  /** What all counts and sizes here are made of. */
  gauges: readonly Gauge[]
  distributions: readonly Distribution[]
}

/** A request is one short line. */
const LINE_MAX_BYTES = 64 << 10
const ANSWER_TIMEOUT_MS = 30_000
/** For answers that an agent has ready: so whoever types `status` sees within 2 s, Node's own start included, that the agent hangs. */
const STATUS_TIMEOUT_MS = 1_500
/** Commands ask one question each; nobody types so many at once. */
const CONNECTIONS_MAX = 64

/** It may quote what a registry said. */
const FIX_MAX_LENGTH = 1_000

/** What went wrong, with the whole reason, and what to do. */
export function refusal(error: unknown): Refusal {
  if (!(error instanceof Failure)) return { ok: false, what: describe(error) }
  const { code, fix } = error
  const advice = fix === undefined ? {} : { fix: fix.slice(0, FIX_MAX_LENGTH) }
  return { ok: false, what: describe(error), code, ...advice }
}

/** Listens at `path`. @throws Failure system when another agent has it */
export async function listen(path: string, answer: (request: AgentRequest) => Promise<AgentAnswer>): Promise<Server> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  // a socket that nobody listens at is left over from an agent that died
  if (await alive(path))
    throw Failure.system('an agent is already running there', { fix: 'Use lazylayer status to see it.' })
  await unlink(path).catch(() => {}) // nothing there is the usual case; anything else fails in listen
  const server = createServer((connection) => {
    connection.setEncoding('utf8')
    let text = ''
    connection.on('error', () => connection.destroy())
    // a client that asks nothing, or reads no answer, neither keeps its connection nor keeps this process alive
    connection.setTimeout(ANSWER_TIMEOUT_MS, () => connection.destroy())
    connection.on('data', (piece: string) => {
      text += piece
      if (text.length > LINE_MAX_BYTES) {
        connection.destroy()
        return
      }
      const end = text.indexOf('\n')
      if (end < 0) return
      connection.removeAllListeners('data')
      connection.resume() // or what comes behind the line would hold up the end
      void respond(text.slice(0, end), answer).then((reply) => connection.end(`${JSON.stringify(reply)}\n`)) // never rejects
    })
  })
  server.maxConnections = CONNECTIONS_MAX
  const listening = new Promise<void>((done, fail) => server.on('error', fail).once('listening', done)) // later errors are single connections'
  // bind(2) happens within this call, so that nothing else of the process sees the umask
  const old = process.umask(0o177)
  try {
    server.listen(path)
  } finally {
    process.umask(old)
  }
  await listening.catch((cause) => {
    throw Failure.system(`cannot listen at ${path}`, { cause })
  })
  return server
}

async function respond(line: string, answer: (request: AgentRequest) => Promise<AgentAnswer>): Promise<AgentAnswer> {
  try {
    const request: unknown = JSON.parse(line)
    if (typeof request === 'object' && request !== null && 'op' in request) {
      if (request.op === 'status' || request.op === 'unmount' || request.op === 'upgrade')
        return await answer({ op: request.op })
      const parsed = parseListRequest(request) ?? parseFillRequest(request)
      if (parsed !== undefined) return await answer(parsed)
    }
    return { ok: false, what: 'unknown request' }
  } catch (error) {
    return refusal(error)
  }
}

function parseListRequest(request: object): ListRequest | undefined {
  if (!('op' in request && request.op === 'list' && 'reference' in request && typeof request.reference === 'string')) {
    return undefined
  }
  const credentials = 'credentials' in request ? parseCredentials(request.credentials) : undefined
  const prove = 'prove' in request ? PROVE.find((each) => each === request.prove) : undefined
  return {
    op: 'list',
    reference: request.reference,
    ...(credentials === undefined ? {} : { credentials }),
    ...(prove === undefined ? {} : { prove }),
    ...('known' in request && request.known === true ? { known: true as const } : {}),
  }
}

function parseFillRequest(request: object): FillRequest | undefined {
  if (!('op' in request && request.op === 'fill' && 'image' in request && typeof request.image === 'string')) {
    return undefined
  }
  const namespace = 'namespace' in request && typeof request.namespace === 'string' ? request.namespace : undefined
  return { op: 'fill', image: request.image, ...(namespace === undefined ? {} : { namespace }) }
}

/** As engines hand them to their helper: fields that are not used are empty, and none at all is usual. */
function parseCredentials(raw: unknown): Credentials | undefined {
  if (typeof raw !== 'object' || raw === null) return undefined
  if ('identityToken' in raw && typeof raw.identityToken === 'string' && raw.identityToken !== '') {
    return { identityToken: raw.identityToken }
  }
  if (!('username' in raw && 'password' in raw)) return undefined
  const { username, password } = raw
  if (typeof username !== 'string' || typeof password !== 'string' || username === '') return undefined
  return { username, password }
}

/**
 * Asks the agent at `path`; undefined when none listens there. What takes an agent long is asked of one that has just said its status.
 * @throws Failure timeout: it hangs, denied, unavailable
 */
export async function ask(
  path: string,
  request: AgentRequest,
  timeoutMs = request.op === 'status' ? STATUS_TIMEOUT_MS : ANSWER_TIMEOUT_MS,
): Promise<AgentAnswer | undefined> {
  return await new Promise((done, fail) => {
    const connection = createConnection(path)
    connection.setEncoding('utf8')
    connection.setTimeout(timeoutMs, () => {
      void hungAgent(path).then((agent) => connection.destroy(hungFailure(path, agent, timeoutMs))) // never rejects
    })
    let text = ''
    connection.on('connect', () => connection.write(`${JSON.stringify(request)}\n`))
    connection.on('data', (piece: string) => {
      text += piece
    })
    connection.on('end', () => {
      try {
        done(JSON.parse(text) as AgentAnswer) // our own agent's
      } catch (cause) {
        fail(Failure.unavailable('the agent closed the connection', { cause }))
      }
    })
    connection.on('error', (error) => {
      if (error instanceof Failure) fail(error)
      else if ('code' in error && (error.code === 'ENOENT' || error.code === 'ECONNREFUSED')) done(undefined)
      else if ('code' in error && error.code === 'EAGAIN') {
        void hungAgent(path).then((agent) => fail(hungFailure(path, agent, timeoutMs))) // as many wait already as may; never rejects
      } else if ('code' in error && error.code === 'EACCES') {
        fail(
          Failure.denied(`the agent at ${path} is another user's`, {
            fix: 'Run the command as that user, or as root.',
          }),
        )
      } else fail(Failure.unavailable(`the agent at ${path} cannot be asked`, { cause: error }))
    })
  })
}

/** Asks the agent that serves `dir`, whichever symlinks lead there; undefined when there is none. @throws Failure as ask */
export async function askAt(sockets: string, dir: string, request: AgentRequest): Promise<AgentAnswer | undefined> {
  const answer = await ask(socketFor(sockets, resolve(dir)), request)
  if (answer !== undefined) return answer
  // last, because it looks at the directory, which may hang
  const real = await within(realpath(dir), dir).catch(() => undefined) // then there is nothing else to try
  return real === undefined || real === resolve(dir) ? undefined : await ask(socketFor(sockets, real), request)
}

async function alive(path: string): Promise<boolean> {
  return await new Promise((done) => {
    const connection = createConnection(path)
    connection.on('connect', () => {
      connection.destroy()
      done(true)
    })
    // one that hangs is there, too, when as many wait already as may (EAGAIN)
    connection.on('error', (error) => done('code' in error && error.code === 'EAGAIN'))
  })
}

/** The sockets that exist, whether or not somebody listens. */
export async function listSockets(sockets: string): Promise<string[]> {
  const names = await readdir(sockets).catch(() => []) // no directory: no agent
  return names.filter(isAgentSocket).map((each) => join(sockets, each))
}
