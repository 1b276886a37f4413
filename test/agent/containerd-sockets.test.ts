import { expect, test } from 'vitest'
import { containerdSockets, folderOf } from '../../src/agent/containerd-sockets.ts'

const defaults = { names: ['lazylayer', 'other'], address: '/run/containerd/containerd.sock' }

test('a socket has the default names, or those that it is given with', () => {
  expect(containerdSockets(['/run/a.sock', 'mine=/run/b.sock', 'yours=/run/b.sock'], [], defaults)).toEqual([
    { path: '/run/a.sock', names: ['lazylayer', 'other'], address: defaults.address },
    { path: '/run/b.sock', names: ['mine', 'yours'], address: defaults.address },
  ])
})

test('each has a containerd of its own, or all have one', () => {
  const addresses = (given: string[]) => containerdSockets(['/a', '/b'], given, defaults).map(({ address }) => address)
  expect(addresses(['/x'])).toEqual(['/x', '/x'])
  expect(addresses(['/x', '/y'])).toEqual(['/x', '/y'])
  expect(() => addresses(['/x', '/y', '/z'])).toThrow(/was given 3 times/)
  expect(() => containerdSockets(['/a', 'n=/a'], ['/x', '/y'], defaults)).toThrow(/two containerds/)
})

test('what cannot be one is refused', () => {
  expect(() => containerdSockets(['a/b=/run/x'], [], defaults)).toThrow(/no name of a snapshotter/)
  expect(() => containerdSockets(['=/run/x'], [], defaults)).toThrow(/no name of a snapshotter/)
  expect(() => containerdSockets([`/${'x'.repeat(110)}`], [], defaults)).toThrow(/too long/)
})

test('two names, or two sockets, share nothing', () => {
  const folders = [folderOf('/s', '/a', 'x'), folderOf('/s', '/a', 'y'), folderOf('/s', '/b', 'x')]
  expect(new Set(folders).size).toBe(3)
})
