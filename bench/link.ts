// A TCP proxy that behaves as a link with a round trip and a bandwidth. It delays bytes and reads none, so TLS and HTTP/2 pass.
//
//   client ══► flow up ──► line up (shared) ──► queue ══► target
//   client ◄══ queue ◄── line down (shared) ◄── flow down ◄══ target
//
// A connection costs a round trip before its first byte, as TCP's handshake would. Of a congested network's traits (loss, slow
// start, a filling window) it has none: a link is at its best here.
import { createServer, connect as dial, type Socket } from 'node:net'
import { Line } from './line.ts'

/** Time as the link sees it; tests drive their own. Milliseconds. */
export interface Clock {
  now(): number
  /** Calls back once, not before `at`. */
  wake(at: number, callback: () => void): void
}

export interface LinkOptions {
  target: { host: string; port: number }
  roundTripMs: number
  /** Each way; Infinity where it is not limited. */
  bytesPerSecond: number
  /** Default: the machine's. */
  clock?: Clock
}

export interface LinkCounters {
  connections: number
  /** From clients to the target, counted on entering the link. */
  bytesUp: number
  bytesDown: number
}

export interface Link {
  /** On 127.0.0.1. */
  port: number
  counters(): LinkCounters
  /** Ends every connection and takes no new one, until it is mended. */
  cut(): void
  mend(): void
  /** Ends every connection. */
  close(): Promise<void>
}

/** What enters in one piece; at 100 Mbit/s its last byte is 1.3 ms behind its first. */
const PIECE_MAX_BYTES = 16 << 10
/** Bytes under way a connection and direction beside those that fill the line: a sender need not be woken for each piece. */
const SLACK_BYTES = 256 << 10
/** Linux's own receive windows end at 6 MiB (tcp_rmem); a line that holds more is not filled by one connection there either. */
const WINDOW_MAX_BYTES = 6 << 20
/** A client of a registry opens a handful; more is a leak, and the window is a promise of memory. */
const CONNECTIONS_MAX = 256

const machine: Clock = {
  now: () => performance.now(),
  wake: (at, callback) => void setTimeout(callback, Math.max(0, at - performance.now())),
}

interface Arrival {
  at: number
  deliver(): void
}

/** A line and what is on it, in order; one wake-up is outstanding at a time. */
class Direction {
  readonly #line: Line
  readonly #clock: Clock
  #queue: Arrival[] = []
  #first = 0
  #waiting = false

  constructor(line: Line, clock: Clock) {
    this.#line = line
    this.#clock = clock
  }

  send(bytes: number, deliver: () => void): void {
    this.#queue.push({ at: this.#line.enter(this.#clock.now(), bytes), deliver })
    if (!this.#waiting) this.#arrive() // a link without delay is passed at once
  }

  #wait(): void {
    const next = this.#queue[this.#first]
    if (this.#waiting || next === undefined) return
    this.#waiting = true
    this.#clock.wake(next.at, () => {
      this.#waiting = false
      this.#arrive()
    })
  }

  #arrive(): void {
    const now = this.#clock.now()
    for (;;) {
      const next = this.#queue[this.#first]
      if (next === undefined || next.at > now) break
      this.#first += 1
      next.deliver()
    }
    if (this.#first > 1024 || this.#first === this.#queue.length) {
      this.#queue = this.#queue.slice(this.#first)
      this.#first = 0
    }
    this.#wait()
  }
}

/** Carries what `from` sends to `to`; at most about `windowBytes` are under way. */
function carry(
  from: Socket,
  to: Socket,
  direction: Direction,
  windowBytes: number,
  count: (bytes: number) => void,
): void {
  let underWay = 0
  from.on('data', (data: Uint8Array) => {
    count(data.length)
    underWay += data.length
    if (underWay >= windowBytes) from.pause()
    for (let at = 0; at < data.length; at += PIECE_MAX_BYTES) {
      const piece = data.subarray(at, at + PIECE_MAX_BYTES)
      direction.send(piece.length, () => {
        if (to.destroyed) return
        to.write(piece, () => {
          underWay -= piece.length
          if (underWay < windowBytes && from.isPaused()) from.resume()
        })
      })
    }
  })
  from.on('end', () =>
    direction.send(0, () => {
      if (!to.destroyed) to.end()
    }),
  )
}

/** Opens a link on a free port of 127.0.0.1. */
export async function openLink({ target, roundTripMs, bytesPerSecond, clock = machine }: LinkOptions): Promise<Link> {
  const up = new Direction(new Line(roundTripMs / 2, bytesPerSecond), clock)
  const down = new Direction(new Line(roundTripMs / 2, bytesPerSecond), clock)
  const filling = roundTripMs === 0 ? 0 : (bytesPerSecond * roundTripMs) / 1000
  const windowBytes = Math.min(WINDOW_MAX_BYTES, filling + SLACK_BYTES)
  const counters: LinkCounters = { connections: 0, bytesUp: 0, bytesDown: 0 }
  const open = new Set<Socket>()
  let isCut = false

  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (client) => {
    if (isCut) {
      client.destroy()
      return
    }
    counters.connections += 1
    const upstream = dial({ ...target, allowHalfOpen: true, noDelay: true })
    upstream.pause()
    for (const [socket, peer] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      open.add(socket)
      socket.on('error', () => peer.destroy()) // a reset passes the link as one
      socket.on('close', (failed) => {
        open.delete(socket)
        if (failed) peer.destroy()
      })
    }
    clock.wake(clock.now() + roundTripMs, () => {
      carry(client, upstream, up, windowBytes, (bytes) => {
        counters.bytesUp += bytes
      })
      carry(upstream, client, down, windowBytes, (bytes) => {
        counters.bytesDown += bytes
      })
      client.resume()
      upstream.resume()
    })
  })
  server.maxConnections = CONNECTIONS_MAX
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('assertion: a TCP server has a port')

  return {
    port: address.port,
    counters: () => ({ ...counters }),
    cut() {
      isCut = true
      for (const socket of open) socket.destroy()
    },
    mend() {
      isCut = false
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of open) socket.destroy()
      }),
  }
}
