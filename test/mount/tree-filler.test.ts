import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { type LayerFiller, TreeFiller } from '../../src/mount/tree-filler.ts'

/** A layer that fails for some chunks; `asked` lists what it was asked for. */
function layer(failing: Record<number, Failure> = {}) {
  const asked: number[] = []
  let closed = false
  const filler: LayerFiller = {
    fillEach(wanted, _priority, settled) {
      for (const chunk of wanted) {
        asked.push(chunk)
        const failure = failing[chunk]
        queueMicrotask(() => (failure === undefined ? settled(chunk) : settled(chunk, failure)))
      }
    },
    async close() {
      closed = true
    },
  }
  return { filler, asked, closed: () => closed }
}

const corrupt = Failure.corrupt('wrong bytes')

test('a chunk that one layer cannot give comes from the next', async () => {
  const first = layer({ 2: corrupt })
  const second = layer()
  const tree = new TreeFiller(first.filler)
  tree.add(second.filler)
  await tree.fill([1, 2, 3], 'demand')
  expect(first.asked).toEqual([1, 2, 3])
  expect(second.asked).toEqual([2])
})

test('what no layer can give is told of once, with the last word', async () => {
  const missing = Failure.missing('gone')
  const tree = new TreeFiller(layer({ 1: corrupt }).filler)
  tree.add(layer({ 1: missing }).filler)
  const told: unknown[] = []
  tree.fillEach([1], 'demand', (chunk, error) => told.push([chunk, error]))
  await expect(tree.fill([1], 'demand')).rejects.toBe(missing)
  expect(told).toEqual([[1, missing]])
})

test.each([
  ['a full disk', Failure.system('no space')],
  ['an abort', Failure.aborted('not wanted')],
])('another registry is not asked after %s', async (_, failure) => {
  const second = layer()
  const tree = new TreeFiller(layer({ 1: failure }).filler)
  tree.add(second.filler)
  await expect(tree.fill([1], 'demand')).rejects.toBe(failure)
  expect(second.asked).toEqual([])
})

test('nothing wanted is done at once; closing closes all', async () => {
  const first = layer()
  const second = layer()
  const tree = new TreeFiller(first.filler)
  tree.add(second.filler)
  await tree.fill([], 'prefetch')
  await tree.close()
  expect([first.closed(), second.closed()]).toEqual([true, true])
})
