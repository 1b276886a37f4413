import { afterAll, describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { estargz } from '../../src/format/estargz.ts'
import type { Format } from '../../src/format/format.ts'
import { IndexBuilder } from '../../src/format/parser.ts'
import { digestOf } from '../../src/image/digest.ts'
import { buildTree } from '../../src/tree/build.ts'
import { file, indexOf, LAYER_DIGEST, layerOf } from './craft.ts'

const encode = (entries: readonly unknown[]) => new TextEncoder().encode(JSON.stringify({ version: 1, entries }))

describe('an index builder', () => {
  const builder = new IndexBuilder()
  afterAll(() => builder.close())

  test('builds in a worker what would be built here', async () => {
    const json = encode([{ name: 'd', type: 'dir' }, file('d/a', 5, 100), file('b', 7, 200)])
    const tree = await builder.build(estargz, indexOf(json), layerOf(json))
    const here = buildTree(estargz.parseIndex(indexOf(json), layerOf(json)))
    expect(tree.digest).toBe(here.digest)
    expect(digestOf(tree.image)).toBe(tree.digest)
    expect(Buffer.from(tree.chunks.bytes).equals(here.chunks.bytes)).toBe(true)
    expect(tree.chunks.length).toBe(3)
  })

  test('leaves the index to its caller', async () => {
    const json = encode([])
    const index = indexOf(json)
    await builder.build(estargz, index, layerOf(json))
    expect(index.length).toBe(16 + json.length)
    expect(index.subarray(16)).toEqual(json)
  })

  test('fails as the parser does', async () => {
    const json = encode([{ name: '../x', type: 'dir' }])
    await fails(builder.build(estargz, indexOf(json), layerOf(json)), 'corrupt', `layer ${LAYER_DIGEST}: entry "../x"`)
    const gap = Uint8Array.from([...indexOf(encode([]))].slice(0, 15))
    await fails(builder.build(estargz, gap, layerOf(json)), 'corrupt', `layer ${LAYER_DIGEST}`)
  })

  test('names the layer where the tree cannot be built', async () => {
    const json = encode([
      { name: 'a', type: 'hardlink', linkName: 'b' },
      { name: 'b', type: 'hardlink', linkName: 'a' },
    ])
    await fails(builder.build(estargz, indexOf(json), layerOf(json)), 'corrupt', `layer ${LAYER_DIGEST}: `)
  })

  test('keeps why and what to do of a failure', async () => {
    const unknown: Format = { ...estargz, name: 'rar' }
    const json = encode([])
    await fails(builder.build(unknown, indexOf(json), layerOf(json)), 'unsupported', 'rar')
    const chunk = file('a', 5, 10)
    const wide = encode([chunk])
    const far = 200 << 20
    const layer = layerOf(wide, far + 200)
    const failure = await fails(builder.build(estargz, indexOf(wide, far), layer), 'limit', 'entry "a"')
    expect(failure.why).toMatch(/^at most \d+ are accepted$/)
  })

  test('gives up when the caller does', async () => {
    const json = encode([])
    const signal = AbortSignal.abort(new Error('enough'))
    await fails(builder.build(estargz, indexOf(json), layerOf(json), { signal }), 'aborted', LAYER_DIGEST)
  })
})

const MANY = Buffer.concat([
  Buffer.from('{"entries":['),
  Buffer.alloc(1_500_000 * 27, '{"name":"a","type":"fifo"},').subarray(0, -1),
  Buffer.from(']}'),
])

test('a table that needs too much memory or time fails alone', { timeout: 60_000 }, async () => {
  const small = new IndexBuilder({ heapMaxMb: 48 })
  const hasty = new IndexBuilder({ deadlineMs: 500 })
  try {
    await fails(small.build(estargz, indexOf(MANY), layerOf(MANY)), 'limit', LAYER_DIGEST)
    await fails(hasty.build(estargz, indexOf(MANY), layerOf(MANY)), 'timeout', LAYER_DIGEST)
    // the next one is served
    const json = encode([{ name: 'd', type: 'dir' }])
    expect((await small.build(estargz, indexOf(json), layerOf(json))).image.length).toBeGreaterThan(0)
  } finally {
    await Promise.all([small.close(), hasty.close()])
  }
})

async function fails(promise: Promise<unknown>, code: string, text: string): Promise<Failure> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  )
  expect(error).toBeInstanceOf(Failure)
  expect({ code: (error as Failure).code, message: (error as Failure).message }).toEqual({
    code,
    message: expect.stringContaining(text),
  })
  return error as Failure
}
