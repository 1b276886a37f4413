import { expect, test } from 'vitest'
import type { LayerLease } from '../../src/layer/layer.ts'
import { ShownTrees } from '../../src/snapshotter/shown-trees.ts'
import { digest, image, lazy } from '../stores/store.ts'

const app = image('app', [lazy('base')])
const tree = digest('tree')
const layer = { tree } as LayerLease // what is used of it
const NAME = tree.slice(7, 7 + 32)

function world() {
  const said: string[] = []
  const state = { attach: Promise.resolve(5) }
  const trees = new ShownTrees(
    {
      root: '/store',
      attach: (_, path) => {
        said.push(`attach ${path.join('/')}`)
        return state.attach
      },
      release: (slot) => void said.push(`release ${slot}`),
      cover: async (_, path) => void said.push(`cover ${path.join('/')}`),
      uncover: (path) => void said.push(`uncover ${path.join('/')}`),
    },
    {
      addDirectory: (_, __, name) => void said.push(`directory ${name}`),
      addSymlink: (_, __, name, ___, target) => void said.push(`${name} -> ${target}`),
      graft: (_, name, slot) => void said.push(`graft ${name} ${slot}`),
      remove: (_, name) => void said.push(`remove ${name}`),
    },
  )
  return { trees, said, state }
}

test('a tree stands once, in the mount, as long as somebody holds it', async () => {
  const { trees, said } = world()
  expect(trees.directoryOf(tree)).toBe(`/store/snapshots/${NAME}`)
  await Promise.all([trees.hold(layer, app), trees.hold(layer, app)])
  trees.claim(tree)
  expect(said).toEqual([
    'directory snapshots',
    'directory written',
    `attach snapshots/${NAME}`,
    `graft ${NAME} 5`,
    `cover snapshots/${NAME}`,
  ])
  trees.letGo(tree)
  trees.letGo(tree)
  expect(trees.has(tree)).toBe(true)
  said.length = 0
  trees.letGo(tree)
  expect([trees.has(tree), trees.size]).toEqual([false, 0])
  trees.letGo(tree) // once more than it was held
  await expect.poll(() => said).toEqual([`remove ${NAME}`, `uncover snapshots/${NAME}`, 'release 5'])
})

test('a directory elsewhere has a path in their mount', () => {
  const { trees, said } = world()
  expect(trees.link('own', '/state/snapshots')).toBe('/store/written/own')
  expect(said.at(-1)).toBe('own -> /state/snapshots')
})

test('one that cannot be shown is held by nobody, and shown by the next who can', async () => {
  const { trees, state } = world()
  state.attach = Promise.reject(new Error('its image is damaged'))
  const holding = trees.hold(layer, app)
  expect(trees.has(tree)).toBe(false) // not yet
  await expect(holding).rejects.toThrow('damaged')
  expect(trees.size).toBe(0)
  state.attach = Promise.resolve(6)
  await trees.hold(layer, app)
  expect(trees.has(tree)).toBe(true)
})

test('one that is claimed and cannot be shown yet stays for who holds it when the claim ends', async () => {
  const { trees } = world()
  trees.claim(tree) // a snapshot of an earlier life
  expect(trees.has(tree)).toBe(false)
  await trees.hold(layer, app) // a new one
  trees.letGo(tree)
  expect(trees.has(tree)).toBe(true)
  trees.claim(tree)
  trees.letGo(tree)
  trees.letGo(tree)
  expect([trees.has(tree), trees.size]).toEqual([false, 0])
})
