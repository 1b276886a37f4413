import { randomBytes } from 'node:crypto'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { examineRaw } from '../../src/format/raw-split.ts'
import { digestOf } from '../../src/image/digest.ts'
import { folder } from '../store/folder.ts'
import { LAYER, member } from './tar/tar-craft.ts'

async function examined(blob: Uint8Array, tarMaxBytes = 1 << 30) {
  const dir = await folder()
  await using blobFile = await open(join(dir, 'blob'), 'w+')
  await blobFile.write(blob)
  await using split = await open(join(dir, 'split'), 'w+')
  const seen = await examineRaw({ layer: LAYER.shown, blobFd: blobFile.fd, splitFd: split.fd, tarMaxBytes })
  return { seen, split: new Uint8Array(await readFile(join(dir, 'split'))) }
}

/** What vbatts/tar-split puts together of records without files. */
function putTogether(split: Uint8Array): Buffer {
  const records = gunzipSync(split).toString().trimEnd().split('\n')
  return Buffer.concat(
    records.map((each, i) => {
      const { type, payload, position, ...rest } = JSON.parse(each)
      expect({ type, position, rest }).toEqual({ type: 2, position: i, rest: {} })
      return Buffer.from(payload, 'base64')
    }),
  )
}

test('the records of a layer give its tar back without any of its files, however it is stored', async () => {
  const tar = Buffer.concat([member({ name: 'image/boot' }, randomBytes(3 << 20)), new Uint8Array(1024)])
  for (const blob of [gzipSync(tar, { level: 1 }), zstdCompressSync(tar), tar]) {
    const { seen, split } = await examined(blob)
    expect(seen).toEqual({ diffId: digestOf(tar), tarSize: tar.length, split: digestOf(split) })
    expect(Buffer.compare(putTogether(split), tar)).toBe(0)
  }
})

test('a layer that is cut off, or has more than it may, is refused', async () => {
  const blob = gzipSync(new Uint8Array(100_000))
  await expect(examined(blob.subarray(0, -9))).rejects.toMatchObject({ code: 'corrupt' })
  await expect(examined(blob, 99_999)).rejects.toMatchObject({ code: 'limit' })
})
