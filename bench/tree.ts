// Trees to measure on, the same on each machine: names, sizes and bytes come from counters, not from chance.
import { createCipheriv, createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Bytes that do not compress and are never the same for two names. */
export function noise(name: string, length: number): Uint8Array {
  const key = createHash('sha256').update(name).digest()
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length))
}

export interface TreeShape {
  directories: number
  filesEach: number
  /** Sizes go round from the least to the most. */
  fileMinBytes: number
  fileMaxBytes: number
}

/** Writes the tree; returns the files' paths below `dir`, in order. Half of each file compresses, as in a root filesystem. */
export async function writeTree(dir: string, shape: TreeShape): Promise<string[]> {
  const paths: string[] = []
  for (let d = 0; d < shape.directories; d++) {
    const below = `d${d}`
    await mkdir(join(dir, below), { recursive: true })
    for (let f = 0; f < shape.filesEach; f++) {
      const path = `${below}/f${f}`
      // a step that is prime to the span visits sizes in an order that no read-ahead guesses
      const span = shape.fileMaxBytes - shape.fileMinBytes + 1
      const size = shape.fileMinBytes + ((paths.length * 7919) % span)
      await writeFile(join(dir, path), Buffer.concat([noise(path, size >> 1), Buffer.alloc(size - (size >> 1), path)]))
      paths.push(path)
    }
  }
  return paths
}
