// A record: a small JSON file of the cache. Its digest tells a flipped bit, its version tells another program's idea of it.
//
//   {"version": 2, "digest": "sha256:…" of the record's JSON text, "record": {…}}
import { digestOf } from '../image/digest.ts'

/** At least as high as the cache's: in a cache whose version file is damaged, records of an older one tell themselves. */
const RECORD_VERSION = 2
/** The largest is the record of a merged image: 1024 layers of 75 bytes. */
export const RECORD_MAX_BYTES = 1 << 20

const digest = (record: unknown) => digestOf(new TextEncoder().encode(JSON.stringify(record)))

export function encodeRecord(record: object): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify({ version: RECORD_VERSION, digest: digest(record), record })}\n`)
}

/** What `encodeRecord` was given; undefined when these are not the bytes it gave, or those of another version. */
export function decodeRecord(bytes: Uint8Array): unknown {
  let found: unknown
  try {
    found = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    return undefined // damage is an answer here, and the caller counts it
  }
  if (typeof found !== 'object' || found === null) return undefined
  if (!('version' in found && 'digest' in found && 'record' in found)) return undefined
  if (found.version !== RECORD_VERSION || found.digest !== digest(found.record)) return undefined
  return found.record
}
