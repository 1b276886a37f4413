// What npm test leaves out of the end-to-end tests.
import { expect, test } from 'vitest'
import { kindOf, leftOut } from './e2e/sample.ts'

const named = (...names: string[]) => names.map((name) => ({ name }))

test('titles of one kind differ in who mounts, who pulls, and which way, and in nothing else', () => {
  const kinds = (...titles: string[]) => new Set(titles.map(kindOf)).size
  expect(kinds('an image (erofs)', 'an image (fuse)', 'an image (portable)')).toBe(1)
  expect(kinds('Podman 4.3.1, layers, by DiffID: from', 'Podman 5.4.2, images, by index: from')).toBe(1)
  expect(kinds('goes on (fuse --mount fuse --diffid claimed)', 'goes on (erofs --diffid claimed)')).toBe(2)
  expect(kinds('Podman 5.4.2 runs it', 'Podman 5.4.2 pulls it')).toBe(2)
  expect(kinds('20 pods, one image', '20 pods, 20 images')).toBe(2)
})

test('of each kind one is left in, whatever its place, and the same each time', () => {
  const all = named('a (erofs)', 'a (fuse)', 'a (portable)', 'b', 'c (fuse)')
  const kept = new Set<string>()
  for (let i = 0; i < 50; i++) {
    const out = leftOut(all, `file ${i}`)
    expect(leftOut(all, `file ${i}`)).toEqual(out)
    expect(out).toHaveLength(2)
    const left = all.filter((each) => !out.includes(each)).map(({ name }) => name)
    expect(left.slice(1)).toEqual(['b', 'c (fuse)'])
    kept.add(left[0] as string)
  }
  expect([...kept].sort()).toEqual(['a (erofs)', 'a (fuse)', 'a (portable)'])
})
