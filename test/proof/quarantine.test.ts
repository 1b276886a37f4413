import { expect, test } from 'vitest'
import { isOf, Quarantine } from '../../src/proof/quarantine.ts'
import type { Refutation } from '../../src/store/proofs.ts'
import { digest, refuted } from '../stores/store.ts'

const [blob, tree] = [digest('blob'), digest('tree')]
const WHY = refuted(digest('tar')) as Refutation
const suspect = (of: string, shows: string) => ({ descriptor: { digest: digest(of) }, tree: digest(shows) })

test('whoever watches is told of each layer, and finds it quarantined by then', () => {
  const quarantine = new Quarantine()
  const told: unknown[] = []
  for (const door of ['first', 'second']) {
    quarantine.watch((claim) => told.push([door, claim, quarantine.of(suspect('blob', 'tree'))]))
  }
  expect(quarantine.of(suspect('blob', 'tree'))).toBeUndefined()
  quarantine.add({ blob, tree }, WHY)
  expect(told).toEqual(['first', 'second'].map((door) => [door, { blob, tree }, WHY]))
  quarantine.add({ blob, tree }, WHY)
  expect(quarantine.size).toBe(1)
})

test('a layer is its blob and its tree: another of the two alone is not quarantined', () => {
  const quarantine = new Quarantine()
  quarantine.add({ blob, tree }, WHY)
  for (const [of, shows, found] of [
    ['blob', 'tree', true],
    ['blob', 'another tree', false],
    ['another blob', 'tree', false],
    ['tree', 'blob', false],
  ] as const) {
    expect(isOf({ blob, tree }, suspect(of, shows))).toBe(found)
    expect(quarantine.of(suspect(of, shows)) !== undefined).toBe(found)
  }
})
