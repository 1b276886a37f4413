// Names that engines look for in the additional layer store: LAYERS/<base64 of the reference>/<digest>/{diff,info,blob,use}.
import { type Digest, isDigest } from '../image/digest.ts'
import { parseRegistryReference, type RegistryReference } from '../image/reference.ts'

/** The reference behind a directory name; undefined where an engine would not have written that name. */
export function decodeReference(name: string): RegistryReference | undefined {
  // the standard alphabet, padded; Buffer would accept more than one spelling
  const bytes = Buffer.from(name, 'base64')
  if (bytes.length === 0 || bytes.toString('base64') !== name) return undefined
  try {
    return parseRegistryReference(bytes.toString('utf8'))
  } catch {
    return undefined // whatever was typed there, no image has that name
  }
}

export function decodeDigest(name: string): Digest | undefined {
  return isDigest(name) ? name : undefined
}
