import fs from 'node:fs/promises'
import { connect, createServer, type Http2Server, type IncomingHttpHeaders, type ServerHttp2Session } from 'node:http2'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create, toBinary } from '@bufbuild/protobuf'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { serveCriProxy } from '../../src/snapshotter/cri-proxy.ts'
import { PullImageRequestSchema } from '../../src/snapshotter/generated/cri_pb.ts'
import type { GrpcSocket } from '../../src/snapshotter/grpc-socket.ts'
import { type ToldPull, toldPull } from '../../src/snapshotter/told-pull.ts'

function framed(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5)
  head.writeUInt32BE(message.length, 1)
  return Buffer.concat([head, message])
}

const request = (image: string, auth?: object) =>
  framed(
    toBinary(PullImageRequestSchema, create(PullImageRequestSchema, { image: { image }, ...(auth ? { auth } : {}) })),
  )

describe('a request to pull', () => {
  const check = (title: string, bytes: Uint8Array, expected: object | undefined) =>
    test(title, () => {
      expect(toldPull(bytes)?.credentials).toEqual(expected)
    })

  check('tells of a user and a password', request('r.example.com/a', { username: 'u', password: 'p' }), {
    username: 'u',
    password: 'p',
  })
  check('tells of both in one', request('a', { auth: Buffer.from('u:p:q\0').toString('base64') }), {
    username: 'u',
    password: 'p:q',
  })
  check('tells of a token', request('a', { identityToken: 't', username: 'u' }), { identityToken: 't' })
  check('tells of none', request('a'), undefined)
  check('tells of nothing of use', request('a', { serverAddress: 'x' }), undefined)
  const login = { username: 'u', password: 'p' }
  const saidFor = (image: string, serverAddress: string) => request(image, { ...login, serverAddress })
  check('tells of its own server', saidFor('r.example.com:5000/a', 'https://r.example.com:5000/v2/'), login)
  check('tells of Docker Hub', saidFor('nginx', 'https://index.docker.io/v1/'), login)
  check("tells of another server's", saidFor('r.example.com/a', 'other.example.com'), undefined)
  check("tells of another port's", saidFor('r.example.com/a', 'r.example.com:5000'), undefined)
  check('names no server', saidFor('r.example.com/a', 'https://'), undefined)
  check('names no image', request('A//B', { username: 'u', password: 'p' }), undefined)
  check('is cut off', request('r.example.com/a', { username: 'u', password: 'p' }).subarray(0, 12), undefined)
  check('is compressed', Buffer.concat([Buffer.from([1]), request('a', { username: 'u' }).subarray(1)]), undefined)
  check('is empty', new Uint8Array(), undefined)
  check('is nonsense', framed(Buffer.alloc(100, 0xff)), undefined)

  test('names an image as the pod has it', () => {
    const { host, repository, tag } = toldPull(request('nginx', { username: 'u', password: 'p' }))?.reference ?? {}
    expect([host, repository, tag]).toEqual(['docker.io', 'library/nginx', 'latest'])
  })

  test('names it also with no credentials, or another server’s', () => {
    for (const each of [request('r.example.com:5000/a'), saidFor('r.example.com:5000/a', 'other.example.com')])
      expect(toldPull(each)).toEqual({
        reference: { transport: 'docker', host: 'r.example.com:5000', repository: 'a', tag: 'latest' },
        credentials: undefined,
      })
    expect(toldPull(framed(Buffer.alloc(100, 0xff)))).toBeUndefined()
  })
})

describe('the passthrough', () => {
  let dir: string
  let upstream: Http2Server
  let proxy: GrpcSocket
  const sessions = new Set<ServerHttp2Session>()
  const told: ToldPull[] = []
  const asked: { headers: IncomingHttpHeaders; body: Buffer }[] = []

  beforeEach(async () => {
    told.length = 0
    asked.length = 0
    dir = await fs.mkdtemp(join(tmpdir(), 'cri-'))
    await startUpstream()
    proxy = await serveCriProxy({
      path: join(dir, 'p.sock'),
      upstream: join(dir, 'u.sock'),
      told: async (each) => void told.push(each),
    })
  })
  afterEach(async () => {
    await proxy.close()
    await stopUpstream()
    await fs.rm(dir, { recursive: true })
  })

  /** Answers with what it was sent; `/fails` without a body. */
  async function startUpstream(): Promise<void> {
    upstream = createServer()
    upstream.on('session', (session) => sessions.add(session))
    upstream.on('stream', async (stream, headers) => {
      const parts: Buffer[] = []
      for await (const part of stream.iterator({ destroyOnReturn: false })) parts.push(part)
      const body = Buffer.concat(parts)
      asked.push({ headers, body })
      if (headers[':path'] === '/dies') {
        stream.respond({ 'content-type': 'application/grpc' })
        stream.write(body, () => stream.session?.destroy())
        return
      }
      if (headers[':path'] === '/fails') {
        stream.respond({ 'grpc-status': '5', 'grpc-message': 'gone' }, { endStream: true })
        return
      }
      stream.respond({ 'content-type': 'application/grpc' }, { waitForTrailers: true })
      stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'more-told': 'x' }))
      stream.end(body)
    })
    await new Promise<void>((listening) => upstream.listen(join(dir, 'u.sock'), listening))
  }

  async function stopUpstream(): Promise<void> {
    const closed = new Promise<void>((done) => upstream.close(() => done()))
    for (const each of sessions) each.destroy()
    await closed
  }

  function call(
    path: string,
    body: Uint8Array,
  ): Promise<{ headers: IncomingHttpHeaders; body: Buffer; trailers: IncomingHttpHeaders }> {
    return new Promise((resolve, reject) => {
      const session = connect('http://localhost', { createConnection: () => createConnection(join(dir, 'p.sock')) })
      const stream = session.request({
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
        'own-header': 'y',
      })
      const parts: Buffer[] = []
      let [headers, trailers]: IncomingHttpHeaders[] = [{}, {}]
      stream.on('response', (found) => {
        headers = found
      })
      stream.on('trailers', (found) => {
        trailers = found
      })
      stream.on('data', (part) => parts.push(part))
      stream.on('error', reject)
      stream.on('close', () => {
        session.close()
        resolve({ headers: headers ?? {}, body: Buffer.concat(parts), trailers: trailers ?? {} })
      })
      stream.end(body)
    })
  }

  test('hands every call on as it is, known or not, and takes note of credentials', async () => {
    const pull = request('r.example.com/a:1', { username: 'u', password: 'p' })
    for (const path of ['/runtime.v1.ImageService/PullImage', '/runtime.v9.New/Unknown']) {
      const { body, trailers } = await call(path, pull)
      expect(body.equals(pull)).toBe(true)
      expect(trailers).toMatchObject({ 'grpc-status': '0', 'more-told': 'x' })
    }
    expect(asked.map(({ headers }) => [headers[':path'], headers['own-header']])).toEqual([
      ['/runtime.v1.ImageService/PullImage', 'y'],
      ['/runtime.v9.New/Unknown', 'y'],
    ])
    expect(told).toEqual([expect.objectContaining({ credentials: { username: 'u', password: 'p' } })])
  })

  test('hands on an error that has no body', async () => {
    expect(await call('/fails', request('a'))).toMatchObject({
      headers: { 'grpc-status': '5', 'grpc-message': 'gone' },
    })
  })

  test('breaks off an answer that breaks off', async () => {
    await expect(call('/dies', request('a'))).rejects.toMatchObject({ code: 'ERR_HTTP2_STREAM_ERROR' })
  })

  test('says that nobody answers, and goes on when somebody does again', async () => {
    await call('/x', request('a'))
    await stopUpstream()
    expect((await call('/x', request('a'))).headers).toMatchObject({ 'grpc-status': '14' })
    await startUpstream()
    await expect.poll(async () => (await call('/x', request('a'))).trailers['grpc-status']).toBe('0')
  })
})
