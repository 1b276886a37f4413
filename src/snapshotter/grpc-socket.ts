// gRPC on a unix socket. A client that keeps its only connection to a server that was told to end would wait for it for ever: so the end
// comes a moment after it is asked for, whoever still has a call under way.
import { chmod, lstat, mkdir, unlink } from 'node:fs/promises'
import { createServer, type Http2Server, type ServerHttp2Session } from 'node:http2'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import type { ConnectRouter } from '@connectrpc/connect'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import { Failure } from '../errors.ts'

export interface GrpcSocket {
  /** Answers what is under way for a moment, and takes nothing new. Never rejects. */
  close(): Promise<void>
}

const DRAIN_MS = 1_000
/** Labels of a request have some 64 KiB. */
const REQUEST_MAX_BYTES = 4 << 20

/** For root alone. @throws Failure system: somebody listens there, or nobody can */
export async function listenGrpc(path: string, routes: (router: ConnectRouter) => void): Promise<GrpcSocket> {
  const options = { grpcWeb: false, connect: false, readMaxBytes: REQUEST_MAX_BYTES }
  return await listenHttp2(path, createServer(connectNodeAdapter({ routes, ...options })))
}

/** The same with a server that knows what to answer. */
export async function listenHttp2(path: string, server: Http2Server): Promise<GrpcSocket> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  await removeDead(path)
  const sessions = new Set<ServerHttp2Session>()
  server.on('session', (session) => {
    sessions.add(session)
    session.once('close', () => sessions.delete(session))
    session.on('error', () => {}) // of a client that went away
  })
  const listening = new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.once('listening', resolve)
  })
  // root's from the moment that it is there; it is by the end of the call, and others make files meanwhile
  const mask = process.umask(0o177)
  server.listen(path)
  process.umask(mask)
  try {
    await listening
  } catch (cause) {
    throw Failure.system(`nothing can listen on ${path}`, { cause })
  }
  await chmod(path, 0o600)
  return {
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const session of sessions) session.close()
      const drained = setTimeout(() => {
        for (const session of sessions) session.destroy()
      }, DRAIN_MS)
      await closed
      clearTimeout(drained)
      await unlink(path).catch(() => {}) // the server has removed it
    },
  }
}

/** Makes room where a process that died listened. @throws Failure system: one listens there still, or it is something else */
async function removeDead(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined) // usually there is none
  if (found === undefined) return
  if (!found.isSocket()) throw Failure.system(`${path} is no socket`, { fix: 'Name another path, or remove it.' })
  if (await isAnswered(path)) throw Failure.system(`another process listens on ${path}`)
  await unlink(path).catch(() => {}) // who listens next is told
}

/** Whether anybody takes connections there: what is left by a process that died takes none. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    const end = (answered: boolean) => {
      socket.destroy()
      resolve(answered)
    }
    socket.once('connect', () => end(true))
    socket.once('error', () => end(false))
  })
}
