// Writing into a content store that a service of the test's own has, which behaves as containerd's does.
import { createHash } from 'node:crypto'
import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Code, ConnectError } from '@connectrpc/connect'
import { expect, onTestFinished, test } from 'vitest'
import { digestOf } from '../../src/image/digest.ts'
import { ContentWriter } from '../../src/snapshotter/content-writer.ts'
import { Content } from '../../src/snapshotter/generated/content_pb.ts'
import { listenGrpc } from '../../src/snapshotter/grpc-socket.ts'
import { folder } from '../store/folder.ts'

const BLOB = new Uint8Array(2_500_000).map((_, i) => (i * 31) & 0xff)
const DIGEST = digestOf(BLOB)
const REF = `layer-${DIGEST}`
const signal = new AbortController().signal

/** @param begun what lies there of a blob that was not ended */
async function store(begun: Uint8Array = new Uint8Array()) {
  const contents = new Map<string, { bytes: Buffer; labels: Record<string, string>; namespace: string | null }>()
  const ingests = new Map([[REF, Buffer.from(begun)]])
  const seen = { wrote: [] as number[], aborted: [] as string[] }
  const dir = await folder()
  const path = join(dir, 'c.sock')
  const listening = await listenGrpc(path, (router) =>
    router.service(Content, {
      async *write(requests, { requestHeader }) {
        for await (const { action, ref, offset, data, expected, total, labels } of requests) {
          if (contents.has(expected)) throw new ConnectError('it exists', Code.AlreadyExists)
          let bytes = ingests.get(ref) ?? Buffer.alloc(0)
          if (action === 1) {
            seen.wrote.push(Number(offset))
            if (offset !== 0n && Number(offset) !== bytes.length) throw new ConnectError('offset', Code.OutOfRange)
            if (offset === 0n) bytes = Buffer.alloc(0)
            bytes = Buffer.concat([bytes, data])
            ingests.set(ref, bytes)
          }
          if (action === 2) {
            const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
            if (digest !== expected || bytes.length !== Number(total))
              throw new ConnectError('unexpected commit digest', Code.FailedPrecondition)
            contents.set(digest, { bytes, labels, namespace: requestHeader.get('containerd-namespace') })
          }
          yield { action, offset: BigInt(bytes.length) }
        }
      },
      abort({ ref }) {
        seen.aborted.push(ref)
        ingests.delete(ref)
        return {}
      },
    }),
  )
  onTestFinished(() => listening.close())
  const write = async (bytes: Uint8Array) => {
    await writeFile(join(dir, 'blob'), bytes)
    const file = await open(join(dir, 'blob'))
    const blob = { digest: DIGEST, size: BLOB.length, labels: { of: 'it' } }
    await new ContentWriter(path).write('k8s.io', blob, file, signal).finally(() => file.close())
  }
  return { contents, seen, write }
}

test('a blob is written in parts, with its labels and in its namespace, and once', async () => {
  const { contents, seen, write } = await store()
  await write(BLOB)
  expect(contents.get(DIGEST)).toEqual({ bytes: Buffer.from(BLOB), labels: { of: 'it' }, namespace: 'k8s.io' })
  expect(seen.wrote).toEqual([0, 1 << 20, 2 << 20])
  await write(BLOB)
  expect(seen.wrote).toHaveLength(3)
})

test('what is there of it already is not written again', async () => {
  const { contents, seen, write } = await store(BLOB.subarray(0, 2_000_000))
  await write(BLOB)
  expect(contents.has(DIGEST)).toBe(true)
  expect(seen).toEqual({ wrote: [2_000_000], aborted: [] })
})

test('what is there and is no part of it is written anew', async () => {
  const { contents, seen, write } = await store(new Uint8Array(2_000_000))
  await write(BLOB)
  expect(contents.has(DIGEST)).toBe(true)
  expect(seen.aborted).toEqual([REF])
})

test('bytes of another digest are refused, and a blob that is too short as well', async () => {
  const { contents, write } = await store()
  await expect(write(new Uint8Array(BLOB.length))).rejects.toMatchObject({ code: 'corrupt' })
  await expect(write(BLOB.subarray(0, 100))).rejects.toMatchObject({ code: 'corrupt' })
  expect(contents.size).toBe(0)
})

test('who does not answer is named', async () => {
  const file = { read: () => Promise.reject(new Error('nobody reads')) }
  const blob = { digest: DIGEST, size: 1, labels: {} }
  const writing = new ContentWriter('/nowhere/c.sock').write('k8s.io', blob, file, signal)
  await expect(writing).rejects.toMatchObject({ code: 'unavailable', message: expect.stringContaining('/nowhere') })
})
