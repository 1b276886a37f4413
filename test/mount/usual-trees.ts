// Trees that the native side makes of usual indexes, beside those that parsers make.
import { deepStrictEqual, ok } from 'node:assert/strict'
import { Failure } from '../../src/errors.ts'
import type { Unit } from '../../src/format/format.ts'
import { formatNamed } from '../../src/format/formats.ts'
import type { Part } from '../../src/image/part.ts'
import { loadNative } from '../../src/mount/native.ts'
import { buildTree } from '../../src/tree/build.ts'
import type { Tree } from '../../src/tree/tree.ts'

const { usualTrees } = loadNative()

/**
 * What the native side makes of an index is what parsing it comes to; where that is refused, it makes nothing.
 * @returns whether it made something
 * @throws AssertionError
 */
export async function isUsual(index: Uint8Array, unit: Unit): Promise<boolean> {
  ok(usualTrees !== null)
  const made = await usualTrees(index, unit)
  if (made === undefined) return false
  deepStrictEqual(partsOf(made), partsOf(parsed(index, unit)))
  return true
}

/** A tree, and what its index says of its unit's other layers. */
type Parsed = Tree & { parts?: readonly Part[] }

function parsed(index: Uint8Array, unit: Unit): Parsed {
  try {
    const contents = formatNamed(unit.format).parseIndex(index, unit)
    const { parts } = contents
    return { ...buildTree(contents), ...(parts === undefined ? {} : { parts }) }
  } catch (error) {
    if (error instanceof Failure) throw new Error(`it is refused: ${error.message}`, { cause: error })
    throw error
  }
}

function partsOf({ image, digest, chunks, parts }: Parsed) {
  const content = chunks.contentDigest()
  return { image: Buffer.from(image), digest, chunks: Buffer.from(chunks.bytes), content, parts }
}
