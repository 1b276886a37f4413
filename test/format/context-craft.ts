// Crafted context tables of nydus blobs, as nydusd keeps them: records (version 2), contexts, dictionaries, then the header.

export interface Record2 {
  /** 1 compressed, 2 from a checkpoint, 4 in a batch, 8 encrypted. */
  flags: number
  /** Decoded. */
  size: number
  stored?: number
  offset?: number
  /** The number of what it is decoded with, and where in it. */
  context: number
  within: number
}

export interface Checkpoint {
  offset: number
  stored: number
  size: number
  /** Bits of the byte before, and how many. */
  byte?: number
  bits?: number
  dictionary?: Uint8Array
}

const HEADER_BYTES = 4096
const MAGIC = 0xb10bb10b

export function checkpointTable(records: readonly Record2[], checkpoints: readonly Checkpoint[]): Uint8Array {
  let dictionaryAt = 0
  const contexts = checkpoints.map(({ offset, stored, size, byte = 0, bits = 0, dictionary = new Uint8Array() }) => {
    const context = Buffer.alloc(40)
    context.writeBigUInt64LE(BigInt(offset), 0)
    context.writeBigUInt64LE(BigInt(dictionaryAt), 16)
    for (const [i, value] of [stored, size, dictionary.length].entries()) context.writeUInt32LE(value, 24 + i * 4)
    context[36] = byte
    context[37] = bits
    dictionaryAt += dictionary.length
    return context
  })
  return table(records, contexts, Buffer.concat(checkpoints.map(({ dictionary }) => dictionary ?? new Uint8Array())))
}

export function batchTable(
  records: readonly Record2[],
  batches: readonly { stored: number; size: number }[],
): Uint8Array {
  const contexts = batches.map(({ stored, size }) => {
    const context = Buffer.alloc(40)
    context.writeUInt32LE(stored, 0)
    context.writeUInt32LE(size, 4)
    return context
  })
  return table(records, contexts, Buffer.alloc(0))
}

function table(records: readonly Record2[], contexts: readonly Buffer[], dictionaries: Buffer): Uint8Array {
  const list = Buffer.alloc(records.length * 24)
  for (const [i, { flags, size, stored = 0, offset = 0, context, within }] of records.entries()) {
    list.writeUInt32LE(((flags << 24) | (size - 1)) >>> 0, i * 24 + 4)
    list.writeBigUInt64LE((BigInt(stored) << 40n) | BigInt(offset), i * 24 + 8)
    list.writeUInt32LE(within, i * 24 + 16)
    list.writeUInt32LE(context, i * 24 + 20)
  }
  const decoded = Buffer.concat([list, ...contexts, dictionaries])
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt32LE(MAGIC, 0)
  header.writeUInt32LE(records.length, 12)
  for (const [i, value] of [
    decoded.length,
    decoded.length,
    list.length,
    contexts.length * 40 + dictionaries.length,
  ].entries()) {
    header.writeBigUInt64LE(BigInt(value), [24, 32, 40, 48][i])
  }
  header.writeUInt32LE(contexts.length, 56)
  header.writeUInt32LE(MAGIC, HEADER_BYTES - 4)
  return new Uint8Array(Buffer.concat([decoded, header]))
}
