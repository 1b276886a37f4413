// Stands between kubelet and containerd's image service, because containerd tells a snapshotter of no credentials: hands on every call as it
// is, known or not, and takes note of those that pull an image: from where, and with which credentials.
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  createServer,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2'
import { createConnection } from 'node:net'
import { type GrpcSocket, listenHttp2 } from './grpc-socket.ts'
import { type ToldPull, toldPull } from './told-pull.ts'

export interface CriProxyParts {
  /** Where kubelet asks. */
  path: string
  /** Where the image service is. */
  upstream: string
  /** Is told of a pull, before anybody else is. Never rejects. */
  told(pull: ToldPull): Promise<void>
}

const PULL = '/runtime.v1.ImageService/PullImage'
/** One with a token, and the annotations of its pod. */
const PULL_MAX_BYTES = 1 << 20
/** Of gRPC (status codes): the service cannot be had now. */
const UNAVAILABLE = 14
const { HTTP2_HEADER_PATH, NGHTTP2_FLAG_END_STREAM, NGHTTP2_CANCEL, NGHTTP2_NO_ERROR } = constants

/** @throws Failure as listenHttp2 */
export async function serveCriProxy({ path, upstream, told }: CriProxyParts): Promise<GrpcSocket> {
  let session: ClientHttp2Session | undefined
  const connected = (): ClientHttp2Session => {
    if (session !== undefined && !session.closed && !session.destroyed) return session
    session = connect('http://localhost', { createConnection: () => createConnection(upstream) })
    session.on('error', () => {}) // each of its calls is told
    return session
  }
  const server = createServer()
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {}) // the caller went away
    forward(stream, headers, connected(), told).catch(() => fail(stream, upstream))
  })
  const listening = await listenHttp2(path, server)
  return {
    async close() {
      await listening.close()
      session?.destroy()
    },
  }
}

async function forward(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  session: ClientHttp2Session,
  told: CriProxyParts['told'],
): Promise<void> {
  const begin = headers[HTTP2_HEADER_PATH] === PULL ? await noted(stream, told) : []
  const call = session.request(withoutConnection(headers))
  for (const each of begin) call.write(each)
  stream.pipe(call)
  stream.once('aborted', () => call.close(NGHTTP2_CANCEL))
  await answered(stream, call)
}

/** Takes note of what a call to pull an image tells. @returns what was read of it; the rest follows */
async function noted(stream: ServerHttp2Stream, told: CriProxyParts['told']): Promise<Buffer[]> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of stream.iterator({ destroyOnReturn: false })) {
    parts.push(part)
    size += part.length
    if (size > PULL_MAX_BYTES) return parts // it is none that kubelet makes
  }
  const found = toldPull(Buffer.concat(parts))
  if (found !== undefined) await told(found)
  return parts
}

/** Hands an answer on. @throws when there is none */
function answered(stream: ServerHttp2Stream, call: ClientHttp2Stream): Promise<void> {
  return new Promise((resolve, reject) => {
    let trailers: OutgoingHttpHeaders = {}
    call.once('error', reject)
    call.once('trailers', (found) => {
      trailers = withoutConnection(found)
    })
    call.once('response', (headers, flags) => {
      if (stream.destroyed) return
      const answer = withoutConnection(headers)
      // an error without a body has its status in the headers, and nothing follows
      if ((flags & NGHTTP2_FLAG_END_STREAM) !== 0) {
        stream.respond(answer, { endStream: true })
        return
      }
      stream.respond(answer, { waitForTrailers: true })
      stream.once('wantTrailers', () => stream.sendTrailers(trailers))
      call.pipe(stream)
    })
    call.once('close', () => {
      // one that breaks off has no end that would be handed on
      if (stream.headersSent && call.rstCode === NGHTTP2_NO_ERROR) resolve()
      else reject(new Error('it ended without an answer'))
    })
  })
}

/** What is between two ends of a connection is not handed on; neither are names that Node sets itself. */
function withoutConnection(headers: IncomingHttpHeaders | OutgoingHttpHeaders): OutgoingHttpHeaders {
  const { connection: _, 'transfer-encoding': __, host: ___, ...others } = headers
  return others
}

function fail(stream: ServerHttp2Stream, upstream: string): void {
  if (stream.destroyed) return
  if (stream.headersSent) {
    stream.close(constants.NGHTTP2_INTERNAL_ERROR)
    return
  }
  const message = encodeURIComponent(`the image service at ${upstream} does not answer`)
  const headers = {
    ':status': 200,
    'content-type': 'application/grpc',
    'grpc-status': UNAVAILABLE,
    'grpc-message': message,
  }
  stream.respond(headers, { endStream: true })
}
