// Chunks as codec workers write them, for tests of devices.
import { writeSync } from 'node:fs'
import { Failure } from '../../src/errors.ts'
import type { Slot } from '../../src/store/spill.ts'
import { READY_HEADER_BYTES, READY_VERIFIED } from '../../src/tree/ready.ts'

export const CHUNK_BYTES = 4096

/** Writes chunk `n` of table(…), full of n + 1, and marks it verified. */
export async function write({ deviceFd, readyFd, chunk }: Slot): Promise<void> {
  const bytes = new Uint8Array(CHUNK_BYTES).fill(chunk + 1)
  writeSync(deviceFd, bytes, 0, bytes.length, chunk * CHUNK_BYTES)
  writeSync(readyFd, Uint8Array.of(READY_VERIFIED), 0, 1, READY_HEADER_BYTES + chunk)
}

/** As a worker fails where the system says `code`. */
export function refusal(code: string): Failure {
  return Failure.system('the chunk cannot be written', { cause: Object.assign(new Error(code), { code }) })
}
