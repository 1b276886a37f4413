import { expect, test } from 'vitest'
import { readyText } from '../../src/cli/ready.ts'

test('the first line is as ever; the second names both stores, as they are written into storage.conf', () => {
  const [first, second, ...more] = readyText('/s', 'erofs', { diffId: 'proven', trust: [], byIndex: true }).split('\n')
  expect(first).toBe('serving /s/layers (erofs, --diffid proven)')
  expect(second).toContain('storage.conf: additionalimagestores = ["/s/images"]')
  expect(second).toContain('additionallayerstores = ["/s/layers:ref"]')
  expect(more).toEqual([''])
})

test('whose images are believed, and that no layer is named by its index, stands in the first line', () => {
  expect(readyText('/s', 'erofs', { diffId: 'guarded', trust: ['example.com/a/*'], byIndex: false })).toMatch(
    /^serving \/s\/layers \(erofs, --diffid guarded --trust example.com\/a\/\* --diffid-only\)\n/,
  )
})
