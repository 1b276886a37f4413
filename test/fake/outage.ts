// A registry that goes away: a TCP proxy before it, which can stop to carry bytes, or to listen.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

export class Outage implements AsyncDisposable {
  /** `host:port`, the same for its whole life. */
  readonly host: string
  readonly #target: number
  readonly #sockets = new Set<Socket>()
  #server: Server
  #silent = false

  private constructor(server: Server, target: number) {
    this.#server = server
    this.#target = target
    this.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  /** @param target port of the registry */
  static async before(target: number): Promise<Outage> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const made = new Outage(server, target)
    server.on('connection', (socket) => made.#carry(socket))
    return made
  }

  /** From now on connections are accepted, and nothing comes back. */
  beSilent(): void {
    this.#silent = true
  }

  /** From now on it carries again; connections that were silent are lost. */
  speak(): void {
    this.#silent = false
    this.#cut()
  }

  /** From now on connections are refused. */
  async refuse(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#cut()
    await closed
  }

  async listenAgain(): Promise<void> {
    this.#server = createServer((socket) => this.#carry(socket)).listen(Number(this.host.split(':')[1]), '127.0.0.1')
    await once(this.#server, 'listening')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.listening) await this.refuse()
  }

  #carry(client: Socket): void {
    const registry = connect(this.#target, '127.0.0.1')
    const silent = () => this.#silent
    client.on('data', (bytes) => silent() || registry.write(bytes))
    registry.on('data', (bytes) => silent() || client.write(bytes))
    const end = () => {
      for (const each of [client, registry]) {
        each.destroy()
        this.#sockets.delete(each)
      }
    }
    for (const each of [client, registry]) {
      this.#sockets.add(each)
      each.on('error', end).on('close', end)
    }
  }

  #cut(): void {
    for (const each of [...this.#sockets]) each.destroy()
  }
}
