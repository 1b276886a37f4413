import { expect, test } from 'vitest'
import { hostRoot } from '../../src/snapshotter/mapping.ts'
import { mountsOf, readyMounts, withoutRepeats } from '../../src/snapshotter/mounts.ts'

const own = { upper: '/s/1/fs', work: '/s/1/work' }
const none = { overlay: [], mapped: [] }

test('one directory is bound, several are an overlay', () => {
  expect(mountsOf({ lower: [], own, ...none })).toEqual([{ type: 'bind', source: '/s/1/fs', options: ['rw', 'rbind'] }])
  expect(mountsOf({ lower: ['/b'], own: undefined, ...none })).toEqual([
    { type: 'bind', source: '/b', options: ['ro', 'rbind'] },
  ])
  expect(mountsOf({ lower: ['/t', '/b'], own: undefined, ...none })).toEqual([
    { type: 'overlay', source: 'overlay', options: ['lowerdir=/t:/b'] },
  ])
  expect(mountsOf({ lower: ['/t', '/b'], own, overlay: ['index=off'], mapped: ['uidmap=0:1:2'] })).toEqual([
    {
      type: 'overlay',
      source: 'overlay',
      options: ['workdir=/s/1/work', 'upperdir=/s/1/fs', 'lowerdir=/t:/b', 'index=off', 'uidmap=0:1:2'],
    },
  ])
})

test('who is told that a layer is there sees it by the last option', () => {
  for (const lower of [['/b'], ['/t', '/b']]) expect(readyMounts(lower).at(-1)?.options.at(-1)).toBe('ro')
})

test('of a layer that is there twice the upper one is left', () => {
  expect(withoutRepeats(['/a', '/b', '/a', '/c'])).toEqual(['/a', '/b', '/c'])
})

test("a container's root is where its mapping says", () => {
  expect(hostRoot('0:100000:65536')).toBe(100_000)
  expect(hostRoot('1:5:1,0:7:1')).toBe(7)
  for (const each of ['', '0', '0:1', '1:100000:65536', '0:0:0', '0:-1:5', '0:1:2,x', 'a:b:c', `0:${'9'.repeat(20)}:1`])
    expect(() => hostRoot(each)).toThrow(/maps no/)
})
