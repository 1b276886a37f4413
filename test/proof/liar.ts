// An eStargz layer whose table of contents was rewritten: its digest is right, and what it shows is another tree than the tar has.
import { gunzipSync } from 'node:zlib'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { FOOTER_BYTES, parseFooter } from '../../src/format/estargz/footer.ts'
import { JSON_AT } from '../../src/format/estargz/toc-member.ts'
import { digestOf } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { tailOf } from '../format/craft.ts'

export interface Toc {
  entries: Record<string, unknown>[]
}

/** The table of contents of an eStargz blob. */
export function tocOf(bytes: Uint8Array): { toc: Toc; at: number } {
  const { tocOffset: at = 0 } = parseFooter(bytes.subarray(-FOOTER_BYTES), 'a fixture')
  const tar = gunzipSync(bytes.subarray(at, bytes.length - FOOTER_BYTES))
  const text = tar.subarray(JSON_AT).toString('latin1')
  return { toc: JSON.parse(text.slice(0, text.indexOf('\0'))), at }
}

/** The same layer with a table that `change` rewrote, and the digest of its tar. */
export function withToc(descriptor: Descriptor, bytes: Uint8Array, change: (toc: Toc) => void) {
  const { toc, at } = tocOf(bytes)
  change(toc)
  const json = new TextEncoder().encode(JSON.stringify(toc))
  const lying = Buffer.concat([bytes.subarray(0, at), tailOf(json, at)])
  const annotations = { ...descriptor.annotations, [TOC_DIGEST]: digestOf(json) }
  const changed: Descriptor = { ...descriptor, digest: digestOf(lying), size: lying.length, annotations }
  return { descriptor: changed, bytes: lying, diffId: digestOf(gunzipSync(lying)) }
}
