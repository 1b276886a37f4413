import { expect, test } from 'vitest'
import { type ForgetParts, forgetUnused, type Listed } from '../../src/stores/forget.ts'
import { digest } from './store.ts'

const DAY_MS = 24 * 3_600_000
const listed = (reference: string, ids: string[], at = 0): Listed => ({
  image: { reference, manifest: digest(reference), by: ['index'] },
  ids,
  at,
})

async function forgotten(images: Listed[], inUse: ForgetParts['inUse'], now = 10 * DAY_MS): Promise<string[]> {
  const gone: string[] = []
  const forget: ForgetParts['forget'] = async ({ reference }) => void gone.push(reference)
  expect(await forgetUnused(images, { inUse, forget }, now)).toBe(gone.length)
  return gone
}

test('an image is forgotten when no engine refers to one of its layers, and nobody asked for it within a day', async () => {
  const recent = listed('recent', ['new'], 10 * DAY_MS)
  const images = [listed('used', ['shared', 'own']), listed('idle', ['alone', 'above']), recent]
  const asked: unknown[] = []
  const inUse: ForgetParts['inUse'] = async (layers) => {
    asked.push(...layers)
    return new Set(['shared'])
  }
  expect(await forgotten(images, inUse)).toEqual(['idle'])
  expect(asked).toContainEqual({ id: 'above', parent: 'alone' })
  expect(await forgotten([recent], inUse, 12 * DAY_MS)).toEqual(['recent'])
})

test('where it is not known what engines use nothing is forgotten', async () => {
  expect(await forgotten([listed('idle', ['alone'])], async () => undefined)).toEqual([])
})
