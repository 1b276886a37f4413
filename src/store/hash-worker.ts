// A thread that hashes files, part by part, each file with a number of its own (hasher.ts).
import { createHash, type Hash } from 'node:crypto'
import { readSync } from 'node:fs'
import { parentPort } from 'node:worker_threads'
import { type Digest, finish } from '../image/digest.ts'

/** Parts of one file come in order; `over` forgets it. */
export type Ask = { id: number } & ({ fd: number; from: number; to: number } | { over: 'digest' | 'forget' })

/** One each, in order. `errno`: the part cannot be read. */
export type Told = { digest: Digest } | { errno: string } | 'done'

const BUFFER_BYTES = 1 << 20

const buffer = new Uint8Array(BUFFER_BYTES)
const hashes = new Map<number, Hash>()

function answer(ask: Ask): Told {
  const hash = hashes.get(ask.id) ?? createHash('sha256')
  hashes.set(ask.id, hash)
  if ('over' in ask) {
    hashes.delete(ask.id)
    return ask.over === 'digest' ? { digest: finish(hash) } : 'done'
  }
  try {
    for (let at = ask.from; at < ask.to; ) {
      const read = readSync(ask.fd, buffer, 0, Math.min(buffer.length, ask.to - at), at)
      if (read === 0) break // it was cut off: its digest will tell
      hash.update(buffer.subarray(0, read))
      at += read
    }
    return 'done'
  } catch (error) {
    return { errno: error instanceof Error && 'code' in error ? String(error.code) : 'EIO' }
  }
}

parentPort?.on('message', (ask: Ask) => parentPort?.postMessage(answer(ask)))
