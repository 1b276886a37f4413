// A minimal read-only registry (distribution specification, "pull") over HTTP/2 and HTTP/1.1, in this process.
import { open, readFile, stat } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import {
  createSecureServer,
  type Http2SecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Session,
} from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import { Failure } from '../errors.ts'
import type { Range } from '../image/blob.ts'
import { type Digest, digestOf, hex, isDigest } from '../image/digest.ts'
import { byteRanges, requestedRanges } from './byte-ranges.ts'
import type { Certificate } from './certificate.ts'

/** A document or blob to be served. */
export interface Content {
  mediaType: string
  size: number
  digest: Digest
  /** The bytes from `start` up to `end`. */
  read(start: number, end: number): AsyncIterable<Uint8Array>
}

/** What a registry serves; of any repository, as digests and tags name it. */
export interface Shelf {
  manifest(repository: string, version: string): Promise<Content | undefined>
  blob(repository: string, digest: Digest): Promise<Content | undefined>
}

/** An answer before it is sent. */
export interface RegistryAnswer {
  status: number
  headers: Record<string, string>
  body: AsyncIterable<Uint8Array>
}

const PART_BYTES = 64 << 10
const REF_NAME = 'org.opencontainers.image.ref.name'
const MANIFEST_FALLBACK = 'application/vnd.oci.image.manifest.v1+json'

/** Bytes in memory as content. */
export function memoryContent(bytes: Uint8Array, mediaType = 'application/octet-stream'): Content {
  return {
    mediaType,
    size: bytes.length,
    digest: digestOf(bytes),
    async *read(start, end) {
      for (let at = start; at < end; at += PART_BYTES) yield bytes.subarray(at, Math.min(end, at + PART_BYTES))
    },
  }
}

/** Everything in an OCI layout; tags are read anew at each request, so images may be added while it serves. */
export function layoutShelf(dir: string): Shelf {
  const path = (digest: Digest) => join(dir, 'blobs', 'sha256', hex(digest))
  const content = async (digest: Digest, mediaType: string): Promise<Content | undefined> => {
    const found = await stat(path(digest)).catch(() => undefined) // whatever hides it, it cannot be served
    if (!found?.isFile()) return undefined
    return { mediaType, size: found.size, digest, read: (start, end) => fileRange(path(digest), start, end) }
  }
  return {
    async manifest(_repository, version) {
      const index: unknown = JSON.parse(await readFile(join(dir, 'index.json'), 'utf8'))
      const listed = manifests(index)
      const digest = isDigest(version) ? version : listed.find((each) => each.tag === version)?.digest
      if (!isDigest(digest)) return undefined
      const type = listed.find((each) => each.digest === digest)?.mediaType
      if (type !== undefined) return await content(digest, type)
      // one that an index names: its own bytes say what it is
      const raw: unknown = JSON.parse((await readFile(path(digest), 'utf8').catch(() => '')) || 'null')
      return await content(digest, text(raw, 'mediaType') ?? MANIFEST_FALLBACK)
    },
    blob: (_repository, digest) => content(digest, 'application/octet-stream'),
  }
}

function text(of: unknown, key: string): string | undefined {
  const value: unknown = typeof of === 'object' && of !== null ? Reflect.get(of, key) : undefined
  return typeof value === 'string' ? value : undefined
}

function manifests(index: unknown): { digest: unknown; mediaType: string | undefined; tag: string | undefined }[] {
  const list: unknown = typeof index === 'object' && index !== null ? Reflect.get(index, 'manifests') : undefined
  if (!Array.isArray(list)) return []
  return list.map((each: unknown) => {
    const annotations: unknown =
      typeof each === 'object' && each !== null ? Reflect.get(each, 'annotations') : undefined
    return { digest: text(each, 'digest'), mediaType: text(each, 'mediaType'), tag: text(annotations, REF_NAME) }
  })
}

async function* fileRange(path: string, start: number, end: number): AsyncGenerator<Uint8Array> {
  const file = await open(path, 'r')
  try {
    for (let at = start; at < end; ) {
      const { bytesRead, buffer } = await file.read(new Uint8Array(Math.min(PART_BYTES, end - at)), { position: at })
      if (bytesRead === 0) throw Failure.system(`${path} became shorter`)
      yield buffer.subarray(0, bytesRead)
      at += bytesRead
    }
  } finally {
    await file.close()
  }
}

/** What a registry answers to a request; `url` is the path with its query. */
export async function answer(
  shelf: Shelf,
  method: string,
  url: string,
  header: (name: string) => string | undefined,
): Promise<RegistryAnswer> {
  if (method !== 'GET' && method !== 'HEAD') return refusal(405, 'UNSUPPORTED', 'this registry is read-only')
  const path = url.split('?')[0] ?? ''
  if (path === '/v2/' || path === '/v2') return { status: 200, headers: { 'content-length': '0' }, body: nothing() }
  const match = /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(path)
  const [, repository = '', kind, version = ''] = match ?? []
  if (kind === undefined) return refusal(404, 'NAME_UNKNOWN', 'there is nothing')
  const found =
    kind === 'manifests'
      ? await shelf.manifest(repository, version)
      : isDigest(version)
        ? await shelf.blob(repository, version)
        : undefined
  if (!found) return refusal(404, kind === 'manifests' ? 'MANIFEST_UNKNOWN' : 'BLOB_UNKNOWN', `${version} is unknown`)
  const headers = {
    'content-type': found.mediaType,
    'docker-content-digest': found.digest,
    'accept-ranges': 'bytes',
    etag: `"${found.digest}"`,
  }
  const ranges = kind === 'blobs' ? requestedRanges(header('range'), found.size) : undefined
  if (ranges === 'unsatisfiable') {
    const refused = refusal(416, 'RANGE_INVALID', 'the range lies behind the end')
    return { ...refused, headers: { ...refused.headers, 'content-range': `bytes */${found.size}` } }
  }
  return answerOf(found, ranges, headers, method === 'HEAD')
}

/** The whole content, a range of it, or several. @param bodiless its headers alone */
function answerOf(
  { mediaType, size, read }: Content,
  ranges: readonly Range[] | undefined,
  headers: Record<string, string>,
  bodiless: boolean,
): RegistryAnswer {
  const [first = { start: 0, end: size }, ...more] = ranges ?? []
  if (ranges !== undefined && more.length > 0) {
    const parts = byteRanges(ranges, mediaType, size, read)
    const body = bodiless ? nothing() : parts.body
    return { status: 206, headers: { ...headers, ...parts.headers }, body }
  }
  const { start, end } = first
  const body = bodiless ? nothing() : read(start, end)
  const length = { 'content-length': `${end - start}` }
  if (ranges === undefined) return { status: 200, headers: { ...headers, ...length }, body }
  const contentRange = { 'content-range': `bytes ${start}-${end - 1}/${size}` }
  return { status: 206, headers: { ...headers, ...length, ...contentRange }, body }
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

/** An error as the distribution specification writes it. */
export function refusal(status: number, code: string, message: string): RegistryAnswer {
  const bytes = Buffer.from(JSON.stringify({ errors: [{ code, message }] }))
  return {
    status,
    headers: { 'content-type': 'application/json', 'content-length': `${bytes.length}` },
    body: memoryContent(bytes).read(0, bytes.length),
  }
}

/** Of either protocol. */
export type RegistryRequest = IncomingMessage | Http2ServerRequest
/** Of either protocol. */
export type RegistryResponse = ServerResponse | Http2ServerResponse
/** Answers one request. */
export type Handler = (request: RegistryRequest, response: RegistryResponse) => Promise<void>

/** A server that listens. */
export interface Listening {
  /** `127.0.0.1:PORT`, to be used as a reference's host. */
  host: string
  /** `https://…` or `http://…` */
  url: string
  close(): Promise<void>
}

/** Sends an answer, at the client's pace; stops when the client leaves. */
export async function send(reply: RegistryAnswer, response: RegistryResponse): Promise<void> {
  response.statusCode = reply.status
  for (const [name, value] of Object.entries(reply.headers)) response.setHeader(name, value)
  const writable: Writable = response
  // an HTTP/2 response is a façade: only its stream tells that the client has left
  const left = () =>
    writable.destroyed || writable.writableEnded || ('stream' in response && response.stream?.destroyed)
  for await (const bytes of reply.body) {
    if (left()) return
    if (!writable.write(bytes) && !left()) await drained(writable)
  }
  response.end()
}

async function drained(response: Writable): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = () => {
      response.off('drain', done)
      response.off('close', done)
      resolve()
    }
    response.on('drain', done)
    response.on('close', done)
  })
}

/** With a certificate it speaks TLS and what ALPN agrees on (HTTP/2 first), else plain HTTP/1.1. */
export function listen(handler: Handler, certificate?: Certificate, port?: number): Promise<Listening> {
  const serve = listener(handler)
  return attach(
    certificate ? createSecureServer({ ...certificate, allowHTTP1: true }, serve) : createServer(serve),
    certificate ? 'https' : 'http',
    port,
  )
}

/** A handler that throws ends its request, never the process. */
export function listener(handler: Handler): (request: RegistryRequest, response: RegistryResponse) => void {
  return (request, response) => {
    handler(request, response).catch(() => response.destroy())
  }
}

/** Lets a server listen on the loopback; closing it ends its connections. */
export async function attach(
  server: Server | Http2SecureServer,
  scheme: 'https' | 'http',
  port = 0,
): Promise<Listening> {
  const open = new Set<Socket | ServerHttp2Session>()
  const keep = (each: Socket | ServerHttp2Session) => {
    open.add(each)
    each.on('error', () => {}) // a client that vanishes is its own affair
    each.on('close', () => open.delete(each))
  }
  server.on('connection', keep)
  server.on('secureConnection', keep)
  server.on('session', keep)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  // a TCP server's address has a port
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    host,
    url: `${scheme}://${host}`,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const each of open) each.destroy()
      await closed
    },
  }
}

/** A request's headers by lower-case name. */
export function headerOf(request: RegistryRequest): (name: string) => string | undefined {
  return (name) => {
    const value = request.headers[name]
    return typeof value === 'string' ? value : undefined
  }
}

/** The registry of the demo: serves `shelf` until it is closed. */
export function serveShelf(shelf: Shelf, certificate?: Certificate, port?: number): Promise<Listening> {
  const handler: Handler = async (request, response) => {
    await send(await answer(shelf, request.method ?? '', request.url ?? '', headerOf(request)), response)
  }
  return listen(handler, certificate, port)
}
