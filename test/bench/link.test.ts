import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { type Clock, type Link, type LinkOptions, openLink } from '../../bench/link.ts'

const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

/** Time stands still until it is moved. */
class StillClock implements Clock {
  #now = 0
  #asleep: { at: number; callback: () => void }[] = []

  now(): number {
    return this.#now
  }
  wake(at: number, callback: () => void): void {
    this.#asleep.push({ at, callback })
  }
  move(to: number): void {
    this.#now = to
    const due = this.#asleep.filter((each) => each.at <= to)
    this.#asleep = this.#asleep.filter((each) => each.at > to)
    for (const { callback } of due) callback()
  }
}

async function listen(onConnection: (socket: Socket) => void): Promise<{ host: string; port: number }> {
  const sockets: Socket[] = []
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
    onConnection(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('a TCP server has a port')
  return { host: '127.0.0.1', port: address.port }
}

async function link(options: Omit<LinkOptions, 'target'> & { target?: LinkOptions['target'] }): Promise<Link> {
  const opened = await openLink({ target: await listen((socket) => socket.pipe(socket)), ...options })
  closing.push(() => opened.close())
  return opened
}

function dial(to: Link, allowHalfOpen = false): Socket {
  const socket = connect({ port: to.port, host: '127.0.0.1', allowHalfOpen })
  socket.on('error', () => {})
  closing.push(() => socket.destroy())
  return socket
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1))
}

/** Long enough for what is on its way over loopback to show up; a test whose bytes must not come is only as strict as this. */
function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 20))
}

test('everything passes both ways unchanged and in order, however it is cut', async () => {
  const over = await link({ roundTripMs: 2, bytesPerSecond: 50e6 })
  const sent = Buffer.alloc(1_000_003, Buffer.from(Array.from({ length: 251 }, (_, i) => i)))
  const socket = dial(over)
  for (let at = 0, step = 1; at < sent.length; at += step, step = (step * 7) % 40_009) {
    socket.write(sent.subarray(at, at + step))
  }
  socket.end()
  const received = Buffer.concat(await socket.toArray())
  expect(received.equals(sent)).toBe(true)
  expect(over.counters()).toEqual({ connections: 1, bytesUp: sent.length, bytesDown: sent.length })
})

test('a connection costs a round trip, then half a one each way', async () => {
  const clock = new StillClock()
  let heard = 0
  const target = await listen((socket) =>
    socket.on('data', (data: Buffer) => {
      heard += data.length
      socket.write(data)
    }),
  )
  const over = await link({ target, roundTripMs: 40, bytesPerSecond: Number.POSITIVE_INFINITY, clock })
  const socket = dial(over)
  let answered = 0
  socket.on('data', (data: Buffer) => {
    answered += data.length
  })
  socket.write('ping')
  await until(() => over.counters().connections === 1)
  clock.move(39)
  await settle()
  expect(over.counters().bytesUp).toBe(0)
  clock.move(40)
  await until(() => over.counters().bytesUp === 4)
  clock.move(59)
  await settle()
  expect(heard).toBe(0)
  clock.move(60)
  await until(() => over.counters().bytesDown === 4)
  expect(heard).toBe(4)
  clock.move(79)
  await settle()
  expect(answered).toBe(0)
  clock.move(80)
  await until(() => answered === 4)
})

test('connections share the rate', async () => {
  const clock = new StillClock()
  const heard: number[] = []
  const target = await listen((socket) => {
    const i = heard.push(0) - 1
    socket.on('data', (data: Buffer) => {
      heard[i] = (heard[i] as number) + data.length
    })
  })
  const over = await link({ target, roundTripMs: 0, bytesPerSecond: 1000, clock })
  for (const bytes of [300, 200]) {
    const before = over.counters()
    dial(over).write(Buffer.alloc(bytes))
    await until(() => over.counters().connections > before.connections)
    clock.move(clock.now()) // the handshake, which takes no time here
    await until(() => over.counters().bytesUp === before.bytesUp + bytes)
  }
  clock.move(499)
  await until(() => heard[0] === 300)
  await settle()
  expect(heard).toEqual([300, 0])
  clock.move(500)
  await until(() => heard[1] === 200)
})

test('a peer that does not read stops the sender: what is under way is bounded', async () => {
  const target = await listen((socket) => socket.pause())
  const over = await link({ target, roundTripMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY })
  const socket = dial(over)
  const offered = 64 << 20
  for (let at = 0; at < offered; at += 1 << 20) socket.write(Buffer.alloc(1 << 20))
  await until(() => over.counters().bytesUp > 0)
  let last = -1
  while (over.counters().bytesUp !== last) {
    last = over.counters().bytesUp
    await settle()
  }
  expect(last).toBeLessThan(32 << 20) // the window and the kernel's buffers
})

test('an end passes behind the bytes before it and leaves the way back open', async () => {
  const target = await listen((socket) => {
    let heard = ''
    socket.on('data', (data: Buffer) => {
      heard += data.toString()
    })
    socket.on('end', () => socket.end(`heard ${heard}`))
  })
  const over = await link({ target, roundTripMs: 4, bytesPerSecond: 1e6 })
  const socket = dial(over, true)
  socket.end('question')
  expect(Buffer.concat(await socket.toArray()).toString()).toBe('heard question')
})

test('a reset on one side ends the other', async () => {
  const target = await listen((socket) => socket.once('data', () => socket.resetAndDestroy()))
  const over = await link({ target, roundTripMs: 1, bytesPerSecond: 1e6 })
  const socket = dial(over)
  socket.write('x')
  await once(socket, 'close')
})

test('a target that refuses ends the connection', async () => {
  const gone = await openLink({ target: { host: '127.0.0.1', port: 1 }, roundTripMs: 1, bytesPerSecond: 1e6 })
  closing.push(() => gone.close())
  await once(dial(gone), 'close')
})

test('closing a link ends its connections', async () => {
  const over = await link({ roundTripMs: 1, bytesPerSecond: 1e6 })
  const socket = dial(over)
  socket.write('x')
  await once(socket, 'data')
  const ended = once(socket, 'close')
  await over.close()
  await ended
})

test('a link that is cut ends what is open and takes nothing, until it is mended', async () => {
  const over = await link({ roundTripMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY })
  const passes = async (): Promise<string> => {
    const socket = dial(over)
    socket.end('hello')
    return Buffer.concat(await socket.toArray().catch(() => [])).toString()
  }
  const open = dial(over)
  open.write('hello')
  await once(open, 'data')
  over.cut()
  await once(open, 'close')
  expect(await passes()).toBe('')
  over.mend()
  expect(await passes()).toBe('hello')
})
