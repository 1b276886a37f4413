import { execFileSync } from 'node:child_process'
import { open, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { digestOf } from '../../src/image/digest.ts'
import { Hasher } from '../../src/store/hasher.ts'
import { noise } from '../codec/fixture.ts'
import { folder } from './folder.ts'

const MIB = 1 << 20

function hasher(): Hasher {
  const made = new Hasher()
  onTestFinished(() => made.close())
  return made
}

async function fileOf(bytes: Uint8Array, name = 'file') {
  const path = join(await folder(), name)
  const file = await open(path, 'w+')
  onTestFinished(() => file.close())
  await file.writeFile(bytes)
  return { path, file }
}

test('the digest of a file is that of its bytes, however large it is', async () => {
  const hashes = hasher()
  for (const size of [0, 1, MIB, 20 * MIB + 1]) {
    const bytes = noise(size)
    const { file } = await fileOf(bytes)
    expect(await hashes.digestOf(file.fd, size)).toBe(digestOf(bytes))
  }
})

test('files are hashed as they are written, side by side', async () => {
  const hashes = hasher()
  const all = [3 * MIB, 50 * MIB, 0].map(async (size) => {
    const bytes = noise(size)
    const { file } = await fileOf(new Uint8Array())
    const hashing = hashes.begin(file.fd)
    for (let at = 0; at < size; at += MIB) {
      await file.write(bytes, at, Math.min(MIB, size - at), at)
      await hashing.written(Math.min(size, at + MIB))
    }
    expect(await hashing.digest()).toBe(digestOf(bytes))
    await hashing.close()
  })
  await Promise.all(all)
})

test('a file that was cut off has another digest, and one that cannot be read none', async () => {
  const hashes = hasher()
  const bytes = noise(3 * MIB)
  const { file, path } = await fileOf(bytes)
  await truncate(path, MIB)
  expect(await hashes.digestOf(file.fd, bytes.length)).toBe(digestOf(bytes.subarray(0, MIB)))
  const dir = await open(await folder(), 'r')
  await expect(hashes.digestOf(dir.fd, 1)).rejects.toMatchObject({ code: 'system', cause: { code: 'EISDIR' } })
  await dir.close()
  expect(await hashes.digestOf(file.fd, MIB)).toBe(digestOf(bytes.subarray(0, MIB)))
})

test('what was given up is let go, and what its thread took along fails rather than begins anew', async () => {
  const hashes = hasher()
  const bytes = noise(3 * MIB)
  const { file } = await fileOf(bytes)
  const given = hashes.begin(file.fd)
  await given.written(MIB)
  await given.close()
  const half = hashes.begin(file.fd)
  await half.written(MIB)
  await hashes.close()
  const rest = async () => {
    await half.written(3 * MIB)
    return await half.digest()
  }
  await expect(rest()).rejects.toMatchObject({ name: 'Failure' })
  await half.close()
  expect(await hashes.digestOf(file.fd, bytes.length)).toBe(digestOf(bytes))
})

test('a hasher that is idle, or has a file half hashed, does not keep its process alive', async () => {
  const source = new URL('../../src/store/hasher.ts', import.meta.url).href
  const program = join(await folder(), 'program.mjs')
  await writeFile(
    program,
    `
    const { Hasher } = await import(${JSON.stringify(source)})
    const { openSync } = await import('node:fs')
    const hasher = new Hasher(), fd = openSync(process.execPath, 'r')
    await hasher.digestOf(fd, 1000)
    await hasher.begin(fd).written(1000)
    process.stdout.write('done')`,
  )
  expect(execFileSync(process.execPath, [program], { timeout: 120_000 }).toString()).toBe('done')
})
