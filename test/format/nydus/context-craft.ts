// Crafted tables of nydus blobs: contexts of chunks, and what says what is where in a blob.
import { createHash } from 'node:crypto'

export interface Record1 {
  size: number
  stored: number
  offset: number
}

export interface Record2 extends Record1 {
  /** 1 compressed, 2 zran, 4 batch, 8 encrypted. */
  flags: number
  context?: number
  within?: number
}

export interface Checkpoint {
  at: number
  stored: number
  size: number
  /** The byte before, and how many bits of it. */
  byte?: number
  bits?: number
  dictionary?: Uint8Array
}

/** 16 bytes a record. */
export function records1(records: readonly Record1[]): Uint8Array {
  return joined(
    records.map(({ size, stored, offset }) => {
      const one = size - 1
      const two = stored - 1
      return words(
        (BigInt(one & 0xfffff) << 44n) | (BigInt(one >>> 20) << 8n),
        (BigInt(two & 0xfffff) << 44n) | (BigInt(two >>> 20) << 40n) | BigInt(offset),
      )
    }),
  )
}

/** 24 bytes a record. */
export function records2(records: readonly Record2[]): Uint8Array {
  return joined(
    records.map(({ size, stored, offset, flags, context = 0, within = 0 }) =>
      words(
        (BigInt(flags) << 56n) | (BigInt(size - 1) << 32n),
        (BigInt(stored) << 40n) | BigInt(offset),
        (BigInt(context) << 32n) | BigInt(within),
      ),
    ),
  )
}

export function batches(sizes: readonly { stored: number; size: number }[]): Uint8Array {
  return joined(
    sizes.map(({ stored, size }) => {
      const context = Buffer.alloc(40)
      context.writeUInt32LE(stored, 0)
      context.writeUInt32LE(size, 4)
      return context
    }),
  )
}

/** Contexts, and their dictionaries behind them. */
export function checkpoints(all: readonly Checkpoint[]): Uint8Array {
  let dictionaries = 0
  const contexts = all.map(({ at, stored, size, byte = 0, bits = 0, dictionary = Buffer.alloc(0) }) => {
    const context = Buffer.alloc(40)
    context.writeBigUInt64LE(BigInt(at), 0)
    context.writeBigUInt64LE(BigInt(dictionaries), 16)
    for (const [i, value] of [stored, size, dictionary.length].entries()) context.writeUInt32LE(value, 24 + i * 4)
    context[36] = byte
    context[37] = bits
    dictionaries += dictionary.length
    return context
  })
  return joined([...contexts, ...all.map(({ dictionary = new Uint8Array() }) => dictionary)])
}

/** @param count records, @param contexts number of contexts behind them */
export function contextHeader(count: number, contexts = 0): Buffer {
  const header = Buffer.alloc(4096)
  header.writeUInt32LE(0xb10bb10b, 0)
  header.writeUInt32LE(count, 12)
  header.writeBigUInt64LE(BigInt(24 * count), 40)
  header.writeUInt32LE(contexts, 56)
  header.writeUInt32LE(0xb10bb10b, 4092)
  return header
}

/** What a blob's end says of its list of digests. */
export function tocOf(
  digests: Uint8Array,
  offset: number,
  stored = digests,
): { bytes: Uint8Array; digest: Uint8Array } {
  const entry = Buffer.alloc(128)
  entry.writeUInt32LE(stored === digests ? 1 : 2, 0)
  entry.write('blob.digest', 8)
  createHash('sha256').update(digests).digest().copy(entry, 24)
  for (const [i, value] of [offset, stored.length, digests.length].entries()) {
    entry.writeBigUInt64LE(BigInt(value), 56 + i * 8)
  }
  const bytes = joined([entry, Buffer.alloc(512, 't')])
  return { bytes, digest: createHash('sha256').update(bytes).digest() }
}

function words(...values: bigint[]): Buffer {
  const bytes = Buffer.alloc(values.length * 8)
  for (const [i, value] of values.entries()) bytes.writeBigUInt64LE(value, i * 8)
  return bytes
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}
