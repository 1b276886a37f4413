// When the link is idle, and how much of it is taken beside others.
import { expect, test } from 'vitest'
import { IdleLink } from '../../src/proof/idle-link.ts'
import type { StoredBlob } from '../../src/registry/source.ts'

/** A link, and a clock that waiting moves. */
function link() {
  const it = { asked: 0, read: 0, underWay: 0, now: 0, paused: (): void => {} }
  const made = new IdleLink(() => it, {
    now: () => it.now,
    pause: async (ms, signal) => {
      signal?.throwIfAborted()
      it.now += ms
      it.paused()
    },
  })
  return { it, link: made }
}

const nothing = async () => {}

test('a link is read from until 10 s after the last request began, and as long as bytes are under way', () => {
  const { it, link: idle } = link()
  expect(idle.isRead()).toBe(true) // what was before is not known
  it.now += 10_000
  expect(idle.isRead()).toBe(false)
  it.asked++
  expect(idle.isRead()).toBe(false)
  it.read++
  expect(idle.isRead()).toBe(true)
  it.now += 9_999
  expect(idle.isRead()).toBe(true)
  it.now += 1
  expect(idle.isRead()).toBe(false)
  it.underWay = 1
  it.now += 60_000
  expect(idle.isRead()).toBe(true)
})

test('who waits for an idle link is told 10 s after anybody last asked a registry, or that all is over', async () => {
  for (const what of ['asked', 'read'] as const) {
    const { it, link: idle } = link()
    it.paused = () => void (it.now < 30_000 && it[what]++)
    await idle.whenIdle(nothing, new AbortController().signal)
    expect(it.now).toBe(39_500) // the last request was seen at 29.5 s
    it[what]++
    await expect(idle.whenIdle(nothing, AbortSignal.abort(new Error('the end')))).rejects.toThrow('the end')
    it.now += 60_000
    await expect(idle.whenIdle(nothing, AbortSignal.abort(new Error('the end')))).rejects.toThrow('the end')
  }
})

test('what is asked for in the meantime is not taken for somebody else’s; what programs read then is', async () => {
  const { it, link: idle } = link()
  const { signal } = new AbortController()
  await idle.whenIdle(async () => void it.asked++, signal)
  expect(it.now).toBe(10_000)
  await idle.whenIdle(async () => void it.read++, signal)
  expect(it.now).toBe(10_000)
  await idle.whenIdle(nothing, signal)
  expect(it.now).toBe(20_000)
})

test('beside others a blob takes 1 MiB a second, and all it can get when nobody else is there or it hurries', async () => {
  const { it, link: idle } = link()
  idle.isRead()
  it.now += 10_000
  const part = new Uint8Array(1 << 20)
  const blob: StoredBlob = {
    digest: `sha256:${'a'.repeat(64)}`,
    size: 4 * part.length,
    origin: 'registry.example.com',
    read: async () => part,
    stream: async (take) => {
      for (let i = 0; i < 4; i++) await take(part)
    },
  }
  const taken = async (hurries: boolean) => {
    const began = it.now
    let bytes = 0
    await idle
      .beside(blob, () => hurries)
      .stream(async (each) => {
        bytes += each.length
      })
    expect(bytes).toBe(blob.size)
    return it.now - began
  }
  expect(await taken(false)).toBe(0)
  it.underWay = 1
  expect(await taken(false)).toBe(4_000)
  expect(await taken(true)).toBe(0)
})
