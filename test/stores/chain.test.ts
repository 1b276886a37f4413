import { expect, test } from 'vitest'
import type { Digest } from '../../src/image/digest.ts'
import { type Identity, layerId, linkName } from '../../src/stores/chain.ts'

const A: Digest = `sha256:${'a'.repeat(64)}`
const B: Digest = `sha256:${'b'.repeat(64)}`

const CHAIN = {
  a: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
  ab: '76f79efda453922cda1cecb6ec9e7cf9d86ea968c6dd199d4030dd00078a1686',
  aba: '331c390ce7c528a54a6bbe4e814b7a3563496838d6ff4a306b3208ef1bcda2f4',
  tocA: '101c31f63e736ba8d1143b6a3120f147736fb41b31c0e6f658b482f30d36412e',
  tocATocB: 'ca194aeccd25f5ece929718a34c9e759353999a55753bdf3d1ca714c569e3545',
  tocAB: '80cfd6d070d5c32f15a103ab2b5eb69ebe665daab765dabd40247d8fafd0f435',
}

/** @param ids what `printf '%s' … | sha256sum` says; engines agree, or the end-to-end tests would see them pull */
function check(identities: readonly Identity[], ids: readonly string[]): void {
  let parent: string | undefined
  const found = identities.map((each) => {
    parent = layerId(parent, each)
    return parent
  })
  expect(found).toEqual(ids)
}

test('by DiffID, the base bears it as it is and each layer above hashes what is below', () => {
  check(
    [
      { by: 'diffid', digest: A },
      { by: 'diffid', digest: B },
      { by: 'diffid', digest: A },
    ],
    [CHAIN.a, CHAIN.ab, CHAIN.aba],
  )
})

test('by index, the base is hashed too, with nothing below', () => {
  check(
    [
      { by: 'index', digest: A },
      { by: 'index', digest: B },
    ],
    [CHAIN.tocA, CHAIN.tocATocB],
  )
})

test('a layer that an engine pulled by DiffID stands on one by index, and is another than on one by DiffID', () => {
  check(
    [
      { by: 'index', digest: A },
      { by: 'diffid', digest: B },
    ],
    [CHAIN.tocA, CHAIN.tocAB],
  )
})

test('short names are 26 characters of base 32, the same for ever and none twice', () => {
  const names = Array.from({ length: 1000 }, (_, i) => linkName(i.toString(16).padStart(64, '0')))
  for (const name of names) expect(name).toMatch(/^[A-Z2-7]{26}$/)
  expect(new Set(names).size).toBe(1000)
  // containers keep it in their `lower` files
  expect(linkName('0'.repeat(64))).toBe('A4DERX6HJ457YULIDMNQVUHBK7')
})
