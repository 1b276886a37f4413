import { afterEach, describe, expect, test, vi } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { digestOf } from '../../src/image/digest.ts'
import { LOOK_MS, PATIENCE_MS, Progress } from '../../src/layer/candidates.ts'
import { type LayerFiller, TreeFiller } from '../../src/layer/tree-filler.ts'

/** What is asked of a layer: answered when `answer` says so, as a real one does after `close` and an abort. */
interface Asked {
  chunk: number
  answer(error?: unknown): void
}

/** A layer that fails for some chunks, has others (`here`), and answers at once or, if it `holds`, when it is told to. */
function layer({ failing = {}, here = [], holds = false, seen = false }: Partial<Options> = {}) {
  const asked: number[] = []
  const open: Asked[] = []
  let closed = false
  const filler: LayerFiller = {
    fillEach(wanted, _priority, settled, signal) {
      for (const chunk of new Set(wanted)) {
        if (closed || signal?.aborted) {
          settled(chunk, Failure.aborted('not wanted'))
          continue
        }
        asked.push(chunk)
        if (here.includes(chunk)) {
          settled(chunk)
          continue
        }
        const one: Asked = {
          chunk,
          answer(error) {
            if (!open.includes(one)) return
            open.splice(open.indexOf(one), 1)
            settled(chunk, error, error === undefined && !seen)
          },
        }
        open.push(one)
        signal?.addEventListener('abort', () => one.answer(Failure.aborted('not wanted')))
        if (!holds) queueMicrotask(() => one.answer(failing[chunk]))
      }
    },
    async close() {
      closed = true
      for (const each of [...open]) each.answer(Failure.aborted('closed'))
    },
  }
  return { filler, asked, open, closed: () => closed }
}

interface Options {
  failing: Record<number, Error>
  here: number[]
  holds: boolean
  /** Sees that another brought them. */
  seen: boolean
}

/** A tree of these layers, added in this order. */
function treeOf(...layers: Pick<ReturnType<typeof layer>, 'filler'>[]): TreeFiller {
  const tree = new TreeFiller()
  for (const { filler } of layers) tree.add(filler, HERE)
  return tree
}

const HERE = 'registry.example.com'
const THERE = 'other.example.com'
const BLOB = digestOf(Uint8Array.of(1, 2, 3))

const corrupt = Failure.corrupt('wrong bytes')
const failsAt = (...chunks: number[]) => ({ failing: Object.fromEntries(chunks.map((each) => [each, corrupt])) })

test('a chunk that one layer cannot give comes from the next', async () => {
  const first = layer()
  const second = layer(failsAt(2))
  await treeOf(first, second).fill([1, 2, 3], 'demand')
  expect(second.asked).toEqual([1, 2, 3])
  expect(first.asked).toEqual([2])
})

test('what no layer can give is told of once, with the last word', async () => {
  const missing = Failure.missing('gone')
  const tree = treeOf(layer({ failing: { 1: missing } }), layer(failsAt(1)))
  const told: unknown[] = []
  tree.fillEach([1, 1], 'demand', (chunk, error) => told.push([chunk, error]))
  await expect(tree.fill([1], 'demand')).rejects.toBe(missing)
  expect(told).toEqual([[1, missing]])
})

test('what none can tell of, and says so at once, is told of once', () => {
  const gone = new Error('EIO')
  const broken: LayerFiller = {
    fillEach: (wanted, _priority, settled) => [...wanted].forEach((chunk) => void settled(chunk, gone)),
    close: async () => {},
  }
  const tree = treeOf({ filler: broken }, { filler: { ...broken } })
  const told: unknown[] = []
  tree.fillEach([1, 2], 'demand', (chunk, error) => told.push([chunk, error]))
  expect(told).toEqual([
    [1, gone],
    [2, gone],
  ])
})

test.each([
  ['a full disk', Failure.system('no space')],
  ['an abort', Failure.aborted('not wanted')],
])('another registry is not asked after %s', async (_, failure) => {
  const other = layer()
  const tree = treeOf(other, layer({ failing: { 1: failure } }))
  await expect(tree.fill([1], 'demand')).rejects.toBe(failure)
  expect(other.asked).toEqual([])
})

test('a tree that nobody fills says so at once', async () => {
  await expect(new TreeFiller().fill([1, 2], 'demand')).rejects.toMatchObject({ code: 'aborted' })
})

test('nothing wanted is done at once; closing closes all', async () => {
  const layers = [layer(), layer()]
  const tree = treeOf(...layers)
  await tree.fill([], 'prefetch')
  await tree.close()
  expect(layers.map(({ closed }) => closed())).toEqual([true, true])
})

describe('who is asked first', () => {
  test('is the newest, until another brought something, until that one fails', async () => {
    const old = layer(failsAt(3))
    const middle = layer()
    const newest = layer(failsAt(1))
    const tree = treeOf(middle, old, newest)
    await tree.fill([1], 'demand')
    await tree.fill([2], 'demand')
    expect([newest.asked, old.asked, middle.asked]).toEqual([[1], [1, 2], []])
    await tree.fill([3], 'demand') // old fails, newest brings it
    await tree.fill([4], 'demand')
    expect([newest.asked, old.asked, middle.asked]).toEqual([[1, 3, 4], [1, 2, 3], []])
  })

  test('is nobody for a chunk that was here already', async () => {
    const old = layer({ here: [1] })
    const tree = treeOf(old)
    await tree.fill([1], 'demand')
    const newest = layer()
    tree.add(newest.filler, HERE)
    await tree.fill([2], 'demand')
    expect([old.asked, newest.asked]).toEqual([[1], [2]])
  })

  test('is nobody because it saw that another had brought a chunk', async () => {
    const sees = layer({ seen: true })
    const tree = treeOf(sees)
    await tree.fill([1], 'demand')
    const newest = layer()
    tree.add(newest.filler, HERE)
    await tree.fill([2], 'demand')
    expect([sees.asked, newest.asked]).toEqual([[1], [2]])
  })

  test('is a file while it is there; what it fails at is asked of the others, and it is closed in the end', async () => {
    const registry = layer()
    const tree = treeOf(registry)
    const file = layer({ failing: { 2: new Error('EIO') } })
    await tree.withFile(file.filler, () => tree.fill([1, 2], 'prefetch'))
    await tree.fill([3], 'demand')
    expect([file.asked, registry.asked]).toEqual([
      [1, 2],
      [2, 3],
    ])
    expect(file.closed()).toBe(true)
  })

  test('is a blob that is kept, whenever it is there; nothing is made for one that never is', async () => {
    const registry = layer()
    const tree = treeOf(registry)
    const file = layer({ failing: { 2: Failure.missing('thrown out'), 3: corrupt } })
    let isThere = false
    let made = 0
    tree.addKept(BLOB, {
      isThere: () => isThere,
      filler: () => {
        made++
        return file.filler
      },
    })
    expect(tree.hasKept(BLOB)).toBe(true)
    await tree.fill([0], 'demand')
    expect(made).toBe(0)
    isThere = true
    await tree.fill([1, 2, 3], 'demand')
    isThere = false
    await tree.fill([4], 'demand')
    expect([file.asked, registry.asked, made]).toEqual([[1, 2, 3], [0, 2, 3, 4], 1])
    await tree.close()
    expect(file.closed()).toBe(true)
  })

  test('is one of few blobs, however many layers build the tree: the first one goes', async () => {
    const tree = treeOf(layer())
    const files = Array.from({ length: 6 }, () => layer())
    for (const [i, { filler }] of files.entries()) {
      tree.addKept(digestOf(Uint8Array.of(i)), { isThere: () => true, filler: () => filler })
      await tree.fill([i], 'demand')
    }
    expect(files.map(({ closed }) => closed())).toEqual([true, true, false, false, false, false])
    await tree.close()
    expect(files.every(({ closed }) => closed())).toBe(true)
  })

  test('is a file only as long as it is there: what was asked of it then is asked of the others', async () => {
    const registry = layer()
    const tree = treeOf(registry)
    const file = layer({ holds: true })
    let read: Promise<void> | undefined
    await tree.withFile(file.filler, async () => {
      read = tree.fill([1], 'demand')
    })
    await read
    expect([file.asked, registry.asked]).toEqual([[1], [1]])
  })
})

describe('when there are too many', () => {
  test('one that failed makes room', async () => {
    const layers = [layer(), layer(failsAt(1)), layer(failsAt(2)), layer()]
    const tree = treeOf(...layers.slice(0, 3))
    await tree.fill([1], 'demand') // the third brings it
    await tree.fill([2], 'demand') // the third fails, the second brings it
    tree.add((layers[3] as (typeof layers)[0]).filler, HERE)
    tree.add(layer().filler, HERE)
    expect(layers.map(({ closed }) => closed())).toEqual([false, false, true, false])
  })

  test('else the newest but the new one, unless it is the one that brings something: who was first stays', async () => {
    const layers = [layer(), ...[1, 2, 3].map(() => layer(failsAt(1)))]
    const late = [1, 2, 3, 4, 5].map(() => layer({ holds: true }))
    const tree = treeOf(...layers)
    await tree.fill([1], 'demand')
    for (const { filler } of late) tree.add(filler, HERE)
    expect(layers.map(({ closed }) => closed())).toEqual([false, true, true, true])
    expect(late.map(({ closed }) => closed())).toEqual([false, false, true, true, false])
    await tree.fill([2], 'demand')
    expect(layers[0]?.asked).toEqual([1, 2])
  })

  test.each([
    ['another registry', 'liar.example.com'],
    ['the same registry', HERE],
  ])(
    'however many of %s come, they push out each other, also while the one that was first fails',
    async (_, origin) => {
      const honest = layer(failsAt(1))
      const tree = treeOf(honest)
      const early = layer(failsAt(1))
      tree.add(early.filler, origin)
      await expect(tree.fill([1], 'demand')).rejects.toBe(corrupt)
      // those two failed: of one origin the newer leaves first, of two the one whose origin has most
      const liars = Array.from({ length: 20 }, () => layer(failsAt(2)))
      for (const { filler } of liars.slice(0, 3)) tree.add(filler, origin)
      expect([honest.closed(), early.closed()]).toEqual([false, true])
      await tree.fill([2], 'demand')
      for (const { filler } of liars.slice(3)) tree.add(filler, origin)
      expect([tree.has(honest.filler), honest.closed()]).toEqual([true, false])
      expect(liars.filter(({ filler }) => tree.has(filler))).toHaveLength(3)
      expect(liars.filter(({ closed }) => closed())).toHaveLength(17)
    },
  )

  test('a registry with one layer stays where others have several', () => {
    const tree = new TreeFiller()
    const [one, two, three, four, five] = Array.from({ length: 5 }, () => layer().filler) as [
      LayerFiller,
      LayerFiller,
      LayerFiller,
      LayerFiller,
      LayerFiller,
    ]
    tree.add(two, 'two.example.com')
    tree.add(three, 'two.example.com')
    tree.add(one, HERE)
    tree.add(four, 'three.example.com')
    tree.add(five, 'four.example.com')
    expect([one, two, three, four, five].map((each) => tree.has(each))).toEqual([true, true, false, true, true])
  })

  test('what the one that goes was asked for is asked of the others, and closing waits until it has ended', async () => {
    const ended = Promise.withResolvers<void>()
    const slow = layer({ holds: true })
    const leaves: LayerFiller = {
      ...slow.filler,
      async close() {
        await slow.filler.close()
        await ended.promise
      },
    }
    const tree = treeOf(layer(), layer(), layer(), { filler: leaves })
    const read = tree.fill([1], 'demand')
    const other = layer()
    tree.add(other.filler, HERE)
    await read
    expect(slow.asked).toEqual([1])
    expect(other.asked).toEqual([1])
    let closed = false
    const closing = tree.close().then(() => {
      closed = true
    })
    await Promise.resolve()
    expect(closed).toBe(false)
    ended.resolve()
    await closing
  })
})

describe('one that does not answer', () => {
  afterEach(() => void vi.useRealTimers())

  /** Two layers, of a registry each unless said otherwise; the second one is asked first. */
  function slowTree(origin = THERE) {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
    const other = layer({ holds: true })
    const slow = layer({ holds: true })
    const tree = treeOf(other)
    const progress = new Progress()
    tree.add(slow.filler, origin, progress)
    return { other, slow, tree, progress }
  }

  test('keeps nobody waiting who is served by it, however slowly', async () => {
    const { tree, other, progress } = slowTree()
    const read = tree.fill([1], 'demand')
    for (let i = 0; i < 10; i++) {
      await vi.advanceTimersByTimeAsync(PATIENCE_MS - 1)
      progress.moved() // of the same range, or of what is asked of it before
    }
    expect(other.asked).toEqual([])
    await vi.advanceTimersByTimeAsync(PATIENCE_MS + LOOK_MS)
    expect(other.asked).toEqual([1])
    other.open[0]?.answer()
    await read
  })

  test('is not asked for the same through another layer of the same registry, until it fails', async () => {
    const { tree, slow, other } = slowTree(HERE)
    const read = tree.fill([1], 'demand')
    await vi.advanceTimersByTimeAsync(10 * PATIENCE_MS)
    expect([slow.asked, other.asked]).toEqual([[1], []])
    slow.open[0]?.answer(corrupt)
    expect(other.asked).toEqual([1])
    other.open[0]?.answer()
    await read
  })

  test('keeps nobody who waits from the next: whichever is first counts, and the other is given up', async () => {
    const { tree, slow, other } = slowTree()
    const read = tree.fill([1, 2], 'demand')
    slow.open[0]?.answer()
    await vi.advanceTimersByTimeAsync(PATIENCE_MS - 1)
    expect(other.asked).toEqual([])
    await vi.advanceTimersByTimeAsync(1)
    expect(other.asked).toEqual([2])
    other.open[0]?.answer()
    await read
    expect(slow.open).toEqual([])
    expect(vi.getTimerCount()).toBe(0)
    // from now on that one is asked first
    const next = tree.fill([3], 'demand')
    expect(other.asked).toEqual([2, 3])
    other.open[0]?.answer()
    await next
  })

  test('may still bring what the next fails at', async () => {
    const { tree, slow, other } = slowTree()
    const read = tree.fill([1], 'demand')
    await vi.advanceTimersByTimeAsync(PATIENCE_MS)
    other.open[0]?.answer(corrupt)
    await vi.advanceTimersByTimeAsync(10 * PATIENCE_MS)
    expect([slow.asked, other.asked]).toEqual([[1], [1]])
    slow.open[0]?.answer()
    await read
    expect(vi.getTimerCount()).toBe(0)
  })

  test('is passed over for one that was added meanwhile', async () => {
    const { tree, other } = slowTree()
    const read = tree.fill([1], 'demand')
    await vi.advanceTimersByTimeAsync(2 * PATIENCE_MS)
    expect(other.asked).toEqual([1])
    tree.add(layer().filler, 'added.example.com')
    await vi.advanceTimersByTimeAsync(PATIENCE_MS)
    await read
  })

  test('has all the time for what nobody waits for, and none when the reader gives up', async () => {
    const { tree, slow, other } = slowTree()
    const reader = new AbortController()
    const ahead = expect(tree.fill([1], 'prefetch', reader.signal)).rejects.toMatchObject({ code: 'aborted' })
    expect(vi.getTimerCount()).toBe(0)
    const read = expect(tree.fill([2], 'demand', reader.signal)).rejects.toMatchObject({ code: 'aborted' })
    await vi.advanceTimersByTimeAsync(1)
    reader.abort()
    await Promise.all([ahead, read])
    expect([slow.asked, slow.open, other.asked, vi.getTimerCount()]).toEqual([[1, 2], [], [], 0])
  })
})
