import { expect, test } from 'vitest'
import { type Health, type HealthParts, listenHealth, parseAddress } from '../../src/agent/health.ts'
import { Failure } from '../../src/errors.ts'

const RIGHT: HealthParts = { alive: async () => {}, whyNotReady: async () => undefined, metrics: async () => 'a 1\n' }

async function withHealth(use: (health: Health, get: (path: string) => Promise<[number, string]>) => Promise<void>) {
  const health = await listenHealth({ host: '127.0.0.1', port: 0 })
  const get = async (path: string): Promise<[number, string]> => {
    const answer = await fetch(`http://${health.address}${path}`)
    return [answer.status, await answer.text()]
  }
  try {
    await use(health, get)
  } finally {
    await health.close()
  }
}

test('an address without a host is the loopback address', () => {
  expect(parseAddress('9811')).toEqual({ host: '127.0.0.1', port: 9811 })
  expect(parseAddress('0.0.0.0:1')).toEqual({ host: '0.0.0.0', port: 1 })
  expect(parseAddress('[::1]:65535')).toEqual({ host: '::1', port: 65_535 })
  expect(parseAddress('localhost:0')).toEqual({ host: 'localhost', port: 0 })
})

test('what is no address is refused, and said how to write one', () => {
  for (const text of [
    '',
    'x',
    ':',
    ':80',
    '127.0.0.1:',
    '127.0.0.1:65536',
    '::1:80',
    '[::1]',
    'a b:1',
    '1:2:3',
    '-1',
  ]) {
    expect(() => parseAddress(text), text).toThrow(expect.objectContaining({ code: 'usage' }))
  }
})

test('an agent that starts is alive and not ready', async () => {
  await withHealth(async (_, get) => {
    expect(await get('/healthz')).toEqual([200, 'starting\n'])
    expect(await get('/readyz')).toEqual([503, expect.stringContaining('the agent is starting')])
    expect(await get('/metrics')).toEqual([503, expect.stringContaining('starting')])
  })
})

test('one that serves answers all three, also with a query', async () => {
  await withHealth(async (health, get) => {
    health.serving(RIGHT)
    expect(await get('/healthz')).toEqual([200, 'serving\n'])
    expect(await get('/readyz?verbose')).toEqual([200, 'ready\n'])
    expect(await get('/metrics')).toEqual([200, 'a 1\n'])
    const answer = await fetch(`http://${health.address}/metrics`, { method: 'HEAD' })
    expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect([answer.status, await answer.text()]).toEqual([200, ''])
  })
})

test('one whose mount hangs is neither alive nor ready, and one that engines do not see is only not ready', async () => {
  await withHealth(async (health, get) => {
    const hung = async () => {
      throw Failure.timeout('/store does not answer')
    }
    health.serving({ ...RIGHT, alive: hung, whyNotReady: hung })
    expect(await get('/healthz')).toEqual([503, '/store does not answer\n'])
    expect(await get('/readyz')).toEqual([503, '/store does not answer\n'])
    health.serving({ ...RIGHT, whyNotReady: async () => 'engines do not see it' })
    expect(await get('/healthz')).toEqual([200, 'serving\n'])
    expect(await get('/readyz')).toEqual([503, 'engines do not see it\n'])
  })
})

test('one that ends is alive and not ready', async () => {
  await withHealth(async (health, get) => {
    health.serving(RIGHT)
    health.leaving()
    expect(await get('/healthz')).toEqual([200, 'leaving\n'])
    expect(await get('/readyz')).toEqual([503, 'the agent is leaving\n'])
  })
})

test('nothing else is answered, and nothing is taken', async () => {
  await withHealth(async (health, get) => {
    health.serving(RIGHT)
    for (const path of ['/', '/metrics/', '/__proto__', '/constructor', '//metrics']) {
      expect((await get(path))[0], path).toBe(404)
    }
    const posted = await fetch(`http://${health.address}/metrics`, { method: 'POST', body: 'x' })
    expect(posted.status).toBe(405)
  })
})

test('scrapes at the same time look at the agent once', async () => {
  await withHealth(async (health, get) => {
    let made = 0
    const made1 = Promise.withResolvers<void>()
    health.serving({
      ...RIGHT,
      async metrics() {
        made++
        await made1.promise
        return 'a 1\n'
      },
    })
    const first = get('/metrics')
    const second = get('/metrics')
    expect(await get('/healthz')).toEqual([200, 'serving\n'])
    expect(await get('/healthz')).toEqual([200, 'serving\n'])
    made1.resolve()
    expect(await Promise.all([first, second])).toEqual([
      [200, 'a 1\n'],
      [200, 'a 1\n'],
    ])
    expect(made).toBe(1)
  })
})

test('an address that is taken is named', async () => {
  await withHealth(async (health) => {
    const { host, port } = parseAddress(health.address)
    await expect(listenHealth({ host, port })).rejects.toThrow(health.address)
  })
})
