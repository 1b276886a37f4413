import { readSync } from 'node:fs'
import { expect, onTestFinished, test } from 'vitest'
import { Spill } from '../../src/store/spill.ts'
import { READY_HEADER_BYTES, READY_MISSING, READY_TAKEN_BACK_AT, READY_VERIFIED } from '../../src/tree/ready.ts'
import { CHUNK_BYTES, refusal, write } from './chunks.ts'
import { disk } from './disk.ts'
import { table } from './layer.ts'

function device(spill: Spill) {
  const made = spill.device(table(8))
  onTestFinished(() => made.close())
  return made
}

test('within the budget everything stays; beyond it the oldest goes, of whatever device, by the rules', async () => {
  let counted = 0
  const spill = new Spill(
    disk(),
    (bytes) => {
      counted += bytes
    },
    3 * CHUNK_BYTES,
  )
  const [one, other] = [device(spill), device(spill)]
  await one.fill(0, write)
  await other.fill(5, write)
  await one.fill(1, write)
  expect([one.has(0), other.has(5), one.has(1), spill.bytes]).toEqual([true, true, true, 3 * CHUNK_BYTES])
  await other.fill(6, write)
  expect([one.has(0), other.has(5), one.has(1), other.has(6), spill.bytes]).toEqual([
    false,
    true,
    true,
    true,
    3 * CHUNK_BYTES,
  ])
  const { deviceFd, readyFd } = one.files as { deviceFd: number; readyFd: number }
  const bytes = (fd: number, at: number, length: number) => {
    const into = new Uint8Array(length)
    readSync(fd, into, 0, length, at)
    return [...into]
  }
  expect(bytes(readyFd, READY_HEADER_BYTES, 2)).toEqual([READY_MISSING, READY_VERIFIED])
  expect([bytes(readyFd, READY_TAKEN_BACK_AT, 4), one.taken, other.taken]).toEqual([[1, 0, 0, 0], 1, 0])
  expect(bytes(deviceFd, 0, CHUNK_BYTES)).toEqual(Array(CHUNK_BYTES).fill(0))
  expect(bytes(deviceFd, CHUNK_BYTES, 2)).toEqual([2, 2])
  expect(counted).toBe(spill.bytes)
})

test('a chunk that is wanted twice at once is written once', async () => {
  const spill = new Spill(disk())
  const one = device(spill)
  let written = 0
  const counted: typeof write = async (slot) => {
    written++
    await write(slot)
  }
  await Promise.all([one.fill(3, counted), one.fill(3, counted)])
  expect([written, spill.bytes]).toEqual([1, CHUNK_BYTES])
})

test('what fails, and what a closed device had, takes no room', async () => {
  let counted = 0
  const spill = new Spill(disk(), (bytes) => {
    counted += bytes
  })
  const one = spill.device(table(8))
  await expect(one.fill(0, () => Promise.reject(refusal('EIO')))).rejects.toThrow('cannot be written')
  expect(spill.bytes).toBe(0)
  await one.fill(0, write)
  await one.close()
  expect([spill.bytes, counted, one.files]).toEqual([0, 0, undefined])
})
