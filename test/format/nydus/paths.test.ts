import { expect, test } from 'vitest'
import { RafsPaths } from '../../../src/format/nydus/paths.ts'

const from = { what: 'bootstrap' }
const failure = (code: string, text: RegExp) => expect.objectContaining({ code, message: expect.stringMatching(text) })

test('paths are joined by slashes, below the root by none', () => {
  const paths = new RafsPaths()
  expect(paths.join('', 'a', from)).toBe('a')
  expect(paths.join('a', 'b', from)).toBe('a/b')
})

test('paths longer than Linux takes are refused', () => {
  const paths = new RafsPaths()
  const long = 'n'.repeat(4095)
  expect(paths.join('', `${long}n`, from)).toHaveLength(4096)
  expect(() => paths.join(long, 'n', from)).toThrow(failure('limit', /bootstrap: path "n.* is longer than 4096 bytes/))
})

test('paths that are more together than a bootstrap accounts for are refused', () => {
  const paths = new RafsPaths(100)
  const parent = 'd'.repeat(30)
  for (const name of ['a', 'b', 'c']) paths.join(parent, name, from)
  expect(() => paths.join(parent, 'd', from)).toThrow(failure('limit', /more than 100 letters/))
})
