// When the link is idle, and how much of it is taken beside others.
import { expect, test } from 'vitest'
import { IdleLink } from '../../src/proof/idle-link.ts'
import type { StoredBlob } from '../../src/registry/source.ts'

/** A link, and a clock that waiting moves. */
function link() {
  const it = { requests: 0, underWay: 0, now: 0, paused: (): void => {} }
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

test('a link is idle 3 s after the last request began, and never while bytes are under way', () => {
  const { it, link: idle } = link()
  expect(idle.isBusy()).toBe(true) // what was before is not known
  it.now += 3_000
  expect(idle.isBusy()).toBe(false)
  it.requests++
  expect(idle.isBusy()).toBe(true)
  it.now += 2_999
  expect(idle.isBusy()).toBe(true)
  it.now += 1
  expect(idle.isBusy()).toBe(false)
  it.underWay = 1
  it.now += 60_000
  expect(idle.isBusy()).toBe(true)
})

test('who waits for an idle link is told when it is, or that all is over', async () => {
  const { it, link: idle } = link()
  it.paused = () => void (it.now < 10_000 && it.requests++)
  await idle.idle(new AbortController().signal)
  expect(it.now).toBe(12_500) // the last request was seen at 9.5 s
  it.requests++
  await expect(idle.idle(AbortSignal.abort(new Error('the end')))).rejects.toThrow('the end')
  it.now += 60_000
  await expect(idle.idle(AbortSignal.abort(new Error('the end')))).rejects.toThrow('the end')
})

test('beside others a blob takes 1 MiB a second, and all it can get when nobody else is there or it hurries', async () => {
  const { it, link: idle } = link()
  idle.isBusy()
  it.now += 3_000
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
