import { describe, expect, test } from 'vitest'
import { parseFilters, wantedLabel } from '../../src/snapshotter/filters.ts'
import type { Snapshot } from '../../src/snapshotter/snapshot.ts'

const REF = 'containerd.io/snapshot.ref'
const snapshot: Snapshot = {
  key: 'k8s.io/1/layer',
  kind: 'committed',
  parent: '',
  labels: { [REF]: 'sha256:ab', empty: '', 'with "quotes"': 'a,b' },
  createdAt: 0,
  updatedAt: 0,
  id: 1,
}

describe('a filter', () => {
  const check = (filter: string, expected: boolean) =>
    test(`${filter}: ${expected}`, () => expect(parseFilters([filter])(snapshot)).toBe(expected))

  check(`labels."${REF}"==sha256:ab,parent==""`, true)
  check(`labels."${REF}"==sha256:ab,parent=="other"`, false)
  check(`labels."${REF}"==sha256:abc`, false)
  check(`labels."${REF}"=="sha256:ab"`, true)
  check(`labels."${REF}"!=sha256:cd`, true)
  check(`labels."${REF}"`, true)
  check('labels.empty', false)
  check('labels."with \\"quotes\\""=="a,b"', true)
  check('labels.missing!=x', true)
  check('kind==committed', true)
  check('kind==active', false)
  check('name==k8s.io/1/layer', true)
  check('parent==', true)
  check('unknown==1', false)

  const refuse = (filter: string) =>
    test(`is refused that is ${JSON.stringify(filter.slice(0, 30))}`, () =>
      expect(() => parseFilters([filter])).toThrow(/is no filter/))
  for (const each of [
    '',
    ',',
    'kind==committed,',
    'labels.',
    '=="x"',
    'labels."open',
    'labels."\\x"==1',
    'kind==a b',
    'k'.repeat(20_000),
  ])
    refuse(each)
})

test('of several filters one must match, and none matches all', () => {
  expect(parseFilters(['kind==view', 'kind==committed'])(snapshot)).toBe(true)
  expect(parseFilters(['kind==view', 'kind==active'])(snapshot)).toBe(false)
  expect(parseFilters([])(snapshot)).toBe(true)
})

test('an index on a label serves only filters that all ask for it', () => {
  const wants = `labels."${REF}"==sha256:ab,parent==""`
  expect(wantedLabel([wants], REF)).toEqual(['sha256:ab'])
  expect(wantedLabel([wants, 'kind==view'], REF)).toBeUndefined()
  expect(wantedLabel([`labels."${REF}"!=sha256:ab`], REF)).toBeUndefined()
  expect(wantedLabel([], REF)).toBeUndefined()
})
