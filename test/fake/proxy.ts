// A forward proxy that takes every name for this machine: tunnels for CONNECT, and requests that it forwards itself.
import { createServer, type IncomingHttpHeaders, request } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { Certificate } from '../../src/build/certificate.ts'

export interface FakeProxy extends AsyncDisposable {
  /** `127.0.0.1:PORT` */
  host: string
  /** What it was asked: `CONNECT name:port`, `GET http://name/…`. */
  asked: string[]
  headers: IncomingHttpHeaders[]
  /** Its own answer to everything from now on, instead of what was asked for. */
  refuses: number | undefined
}

/** @param login what it wants to see, in Basic's form */
export async function startProxy(login?: string, certificate?: Certificate): Promise<FakeProxy> {
  const asked: string[] = []
  const headers: IncomingHttpHeaders[] = []
  const sockets = new Set<Socket>()
  const wants = login === undefined ? undefined : `Basic ${Buffer.from(login).toString('base64')}`
  const refusal = (line: string, received: IncomingHttpHeaders): number | undefined => {
    asked.push(line)
    headers.push(received)
    if (proxy.refuses !== undefined) return proxy.refuses
    return wants === undefined || received['proxy-authorization'] === wants ? undefined : 407
  }
  const server = certificate === undefined ? createServer() : createTlsServer(certificate)
  server.on('connection', (socket: Socket) => sockets.add(socket))
  server.on('request', (received, response) => {
    const status = refusal(`${received.method} ${received.url}`, received.headers)
    if (status !== undefined) return void response.writeHead(status).end()
    const { port, pathname, search } = new URL(received.url ?? '')
    const { 'proxy-authorization': _, ...passed } = received.headers
    const onward = request({ host: '127.0.0.1', port, path: pathname + search, headers: passed }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    onward.end()
  })
  server.on('connect', (received, socket: Socket) => {
    const status = refusal(`CONNECT ${received.url}`, received.headers)
    if (status !== undefined) return void socket.end(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\n\r\n`)
    const onward = connect(Number(received.url?.split(':').at(-1)), '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      onward.pipe(socket).pipe(onward)
    })
    sockets.add(onward)
    for (const each of [onward, socket]) each.on('error', () => socket.destroy(onward.destroy() && undefined))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const proxy: FakeProxy = {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    headers,
    refuses: undefined,
    async [Symbol.asyncDispose]() {
      for (const each of sockets) each.destroy()
      await new Promise((done) => server.close(done))
    },
  }
  return proxy
}
