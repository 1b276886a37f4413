// Profiles of starts, as registries and files have them.
import assert from 'node:assert/strict'
import { encodeProfile, type Profile, parseProfile } from '../../../src/image/profile.ts'
import type { Target } from '../target.ts'
import { attempt } from '../well-formed.ts'

const layer = `sha256:${'ab'.repeat(32)}`
const other = `sha256:${'cd'.repeat(32)}`

const text = (value: object) => new TextEncoder().encode(JSON.stringify(value))

export const profile: Target = {
  name: 'profile',
  seeds: [
    text({ version: 1, layers: [layer], folders: ['usr/bin'], files: [[0, 0, 'env']] }),
    text({
      version: 1,
      layers: [layer, other],
      folders: ['', 'usr/lib/python3.11'],
      files: [
        [1, 0, 'start', 0, 4096, 8192, 12288],
        [0, 1, 'os.py'],
        [0, 1, 'abc.py', 0, 1000],
      ],
      stored: [[1, 512, 70000, 90000, 99999], [0]],
    }),
  ],
  run: (bytes) => attempt(() => expectWellFormed(parseProfile(bytes, 'profile'))),
}

function expectWellFormed(read: Profile): void {
  for (const { path, ranges } of read.files) {
    assert(path.split('/').every((part) => !['', '.', '..'].includes(part)) && !path.includes('\0'), `path ${path}`)
    let at = -1
    for (const { start, end } of ranges) {
      assert(start > at && end > start, `${path}: a range of ${start} to ${end}`)
      at = end
    }
  }
  const shown = new Set(read.files.map(({ layer }) => layer))
  const stored = read.stored.filter(({ layer }) => shown.has(layer))
  const again = encodeProfile(read)
  assert.deepEqual(
    again === undefined ? [] : parseProfile(again, 'again'),
    again === undefined ? [] : { ...read, stored },
  )
}
