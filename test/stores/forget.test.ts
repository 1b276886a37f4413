import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { type ForgetParts, Forgetter } from '../../src/stores/forget.ts'
import type { ListedImage } from '../../src/stores/image-chain.ts'
import { digest } from './store.ts'

const DAY_MS = 24 * 3_600_000
const image = (name: string): ListedImage => ({ reference: name, manifest: digest(name), by: ['index'] })

function world(inUse: ForgetParts['inUse']) {
  const forgotten: string[] = []
  const messages: string[] = []
  const forget = async ({ reference }: ListedImage) => void forgotten.push(reference)
  return { forgotten, messages, forgetter: new Forgetter({ inUse, forget, log: (each) => void messages.push(each) }) }
}

test('an image is forgotten when no engine refers to one of its layers, and nobody asked for it within a day', async () => {
  const it = world(async () => new Set(['shared']))
  it.forgetter.note(image('used'), ['shared', 'own'], 0)
  it.forgetter.note(image('idle'), ['alone'], 0)
  it.forgetter.note(image('recent'), ['new'], 10 * DAY_MS)
  await it.forgetter.run(10 * DAY_MS)
  expect(it.forgotten).toEqual(['idle'])
  expect(it.messages).toEqual([expect.stringContaining('1 images')])
  await it.forgetter.run(12 * DAY_MS)
  expect(it.forgotten).toEqual(['idle', 'recent'])
})

test('where it is not known what engines use nothing is forgotten', async () => {
  for (const inUse of [async () => undefined, () => Promise.reject(Failure.system('a root cannot be read'))]) {
    const it = world(inUse)
    it.forgetter.note(image('idle'), ['alone'], 0)
    await it.forgetter.run(10 * DAY_MS)
    expect(it.forgotten).toEqual([])
  }
})

test('roots are not read again and again', async () => {
  let reads = 0
  const it = world(async () => {
    reads++
    return new Set()
  })
  for (let i = 0; i < 10; i++) await it.forgetter.run(DAY_MS + i)
  expect(reads).toBe(1)
  await it.forgetter.run(2 * DAY_MS)
  expect(reads).toBe(2)
})
