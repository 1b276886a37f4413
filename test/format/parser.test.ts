import { fstatSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import type { Worker } from 'node:worker_threads'
import { afterAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { CodecPool } from '../../src/codec/pool.ts'
import { Failure } from '../../src/errors.ts'
import { estargz } from '../../src/format/estargz/estargz.ts'
import { IndexBuilder } from '../../src/format/parser.ts'
import { digestOf } from '../../src/image/digest.ts'
import { buildTree } from '../../src/tree/build.ts'
import { folder } from '../store/folder.ts'
import { file, indexOf, LAYER_DIGEST, layerOf } from './craft.ts'
import { header, LAYER } from './tar/tar-craft.ts'

const encode = (entries: readonly unknown[]) => new TextEncoder().encode(JSON.stringify({ version: 1, entries }))

const AGENTS = new URL('../../src/agent/worker.ts', import.meta.url)
const threads = new CodecPool({ threads: 1, worker: AGENTS })
afterAll(() => threads.close())

describe.each([
  ['an index builder', new IndexBuilder()],
  ['one that borrows threads', new IndexBuilder({ lender: threads })],
])('%s', (_, builder) => {
  afterAll(() => builder.close())

  test('builds in a worker what would be built here', async () => {
    const json = encode([{ name: 'd', type: 'dir' }, file('d/a', 5, 100), file('b', 7, 200)])
    const tree = await builder.build(indexOf(json), layerOf(json))
    const here = buildTree(estargz.parseIndex(indexOf(json), layerOf(json)))
    expect(tree.digest).toBe(here.digest)
    expect(digestOf(tree.image)).toBe(tree.digest)
    expect(Buffer.from(tree.chunks.bytes).equals(here.chunks.bytes)).toBe(true)
    expect(tree.chunks.length).toBe(3)
  })

  test('leaves the index to its caller', async () => {
    const json = encode([])
    const index = indexOf(json)
    await builder.build(index, layerOf(json))
    expect(index.length).toBe(16 + json.length)
    expect(index.subarray(16)).toEqual(json)
  })

  test('fails as the parser does', async () => {
    const json = encode([{ name: '../x', type: 'dir' }])
    await fails(builder.build(indexOf(json), layerOf(json)), 'corrupt', `layer ${LAYER_DIGEST}: entry "../x"`)
    const gap = Uint8Array.from([...indexOf(encode([]))].slice(0, 15))
    await fails(builder.build(gap, layerOf(json)), 'corrupt', `layer ${LAYER_DIGEST}`)
  })

  test('names the layer where the tree cannot be built', async () => {
    const json = encode([
      { name: 'a', type: 'hardlink', linkName: 'b' },
      { name: 'b', type: 'hardlink', linkName: 'a' },
    ])
    await fails(builder.build(indexOf(json), layerOf(json)), 'corrupt', `layer ${LAYER_DIGEST}: `)
  })

  test('keeps why and what to do of a failure', async () => {
    const json = encode([])
    await fails(builder.build(indexOf(json), { ...layerOf(json), format: 'rar' }), 'unsupported', 'rar')
    const chunk = file('a', 5, 10)
    const wide = encode([chunk])
    const far = 200 << 20
    const layer = layerOf(wide, far + 200)
    const failure = await fails(builder.build(indexOf(wide, far), layer), 'limit', 'entry "a"')
    expect(failure.why).toMatch(/^at most \d+ are accepted$/)
  })

  test('gives up when the caller does', async () => {
    const json = encode([])
    const signal = AbortSignal.abort(new Error('enough'))
    await fails(builder.build(indexOf(json), layerOf(json), { signal }), 'aborted', LAYER_DIGEST)
  })
})

const MANY = Buffer.concat([
  Buffer.from('{"entries":['),
  Buffer.alloc(1_500_000 * 27, '{"name":"a","type":"fifo"},').subarray(0, -1),
  Buffer.from(']}'),
])

test('a table that needs too much memory or time fails alone', async () => {
  const small = new IndexBuilder({ heapMaxMb: 48 })
  const hasty = new IndexBuilder({ deadlineMs: 100 })
  try {
    await fails(small.build(indexOf(MANY), layerOf(MANY)), 'limit', LAYER_DIGEST)
    await fails(hasty.build(indexOf(MANY), layerOf(MANY)), 'timeout', LAYER_DIGEST)
    // the next one is served
    const json = encode([{ name: 'd', type: 'dir' }])
    expect((await small.build(indexOf(json), layerOf(json))).image.length).toBeGreaterThan(0)
  } finally {
    await Promise.all([small.close(), hasty.close()])
  }
})

test('an index of some megabytes waits for no thread to start where one stands by', async () => {
  const lender = new CodecPool({ threads: 2, worker: AGENTS })
  const builder = new IndexBuilder({ lender })
  onTestFinished(async () => {
    await Promise.all([builder.close(), lender.close()])
  })
  let has = false
  while (!has) has = (await lender.lend([], { name: 'rest' }, async () => 'none')) !== 'none'
  const threads = threadsFromNowOn()
  const json = encode(
    Array.from({ length: 40_000 }, (_, i) => ({ name: `a-file-of-a-name-that-makes-it-long-${i}`, type: 'fifo' })),
  )
  const tree = await builder.build(indexOf(json), layerOf(json))
  expect(json.length).toBeGreaterThan(2 << 20)
  expect(tree.image.length).toBeGreaterThan(json.length)
  expect(threads).toHaveLength(0)
})

test('where a process may have little memory, large indexes are parsed one at a time, in a thread that leaves', async () => {
  const started = threadsFromNowOn()
  const builder = new IndexBuilder({ lender: threads, memoryBytes: 200 << 20 })
  onTestFinished(() => builder.close())
  const json = encode(
    Array.from({ length: 30_000 }, (_, i) => ({ name: `a-file-of-a-name-that-makes-it-very-long-${i}`, type: 'fifo' })),
  )
  expect(json.length).toBeGreaterThan(2 << 20)
  const build = () => builder.build(indexOf(json), layerOf(json))
  const trees = await Promise.all([build(), build(), build()])
  expect(new Set(trees.map(({ digest }) => digest)).size).toBe(1)
  expect(started).toHaveLength(1)
})

/** 4 GiB take seconds. */
const LONG = 2 ** 32

/** What is to be examined: a tar with one file of so much nothing. */
async function examinationOf(size: number) {
  const dir = await folder()
  const [blob, tar, split] = await Promise.all(['blob', 'tar', 'split'].map((name) => open(join(dir, name), 'w+')))
  const files = [blob, tar, split] as [FileHandle, FileHandle, FileHandle]
  onTestFinished(async () => void (await Promise.all(files.map((each) => each.close()))))
  await files[0].write(header({ name: 'a', size }))
  await files[0].truncate(512 + size + 1024)
  const [blobFd, tarFd, splitFd] = files.map(({ fd }) => fd) as [number, number, number]
  const examination = { layer: LAYER.shown, blobFd, tarFd, splitFd, tarMaxBytes: 2 ** 40, served: undefined }
  return { examination, writing: () => vi.waitFor(() => expect(fstatSync(tarFd).size).toBeGreaterThan(0), 120_000) }
}

/** Threads that are made until the test ends. */
function threadsFromNowOn(): readonly Worker[] {
  const threads: Worker[] = []
  const watch = (thread: Worker) => void threads.push(thread)
  process.on('worker', watch)
  onTestFinished(() => void process.off('worker', watch))
  return threads
}

test.each<[string, (builder: IndexBuilder, caller: AbortController) => unknown]>([
  ['its caller gives up', (_, caller) => caller.abort(new Error('enough'))],
  ['the builder is closed', (builder) => builder.close()],
])('an examination fails only when its thread has ended: when %s', async (_, stop) => {
  const threads = threadsFromNowOn()
  const builder = new IndexBuilder()
  onTestFinished(() => builder.close())
  const { examination, writing } = await examinationOf(LONG)
  const caller = new AbortController()
  const ended = builder.examine(examination, { signal: caller.signal }).then(
    () => 'it ended well',
    () => threads.map(({ threadId }) => threadId),
  )
  await writing()
  void stop(builder, caller)
  expect(await ended).toEqual([-1]) // what Node calls a thread that has ended
})

test('an examination that is given up fails only when its thread has ended, also when that was given its task while it began', async () => {
  const threads = threadsFromNowOn()
  const builder = new IndexBuilder()
  onTestFinished(() => builder.close())
  const { examination: short } = await examinationOf(512)
  const { examination } = await examinationOf(LONG)
  await builder.examine(short)
  const caller = new AbortController()
  const first = builder.examine(short)
  const ended = builder.examine(examination, { signal: caller.signal }).then(
    () => 'it ended well',
    () => threads.slice(1).map(({ threadId }) => threadId),
  )
  await first
  // the second thread has its task now; this one does not hear that it is ready
  for (const begun = Date.now(); fstatSync(examination.tarFd).size === 0; )
    expect(Date.now() - begun).toBeLessThan(120_000)
  caller.abort(new Error('enough'))
  expect(await ended).toEqual([-1])
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
