// What a signature says (containers-signature(5)): this manifest, under this name. Both kinds of signatures sign the same JSON.
import { Failure } from '../errors.ts'
import { type Digest, parseDigest } from '../image/digest.ts'
import { asRecord, asText, parseStrictJson, type StrictJson } from './strict-json.ts'

/** Says so of itself, so that no signature over anything else can be passed off as one over an image. */
export type PayloadType = 'atomic container signature' | 'cosign container image signature'

export interface Payload {
  manifest: Digest
  /** As it stands there: perhaps no reference at all. */
  reference: string
}

/** Only after the signature over `bytes` was verified. @throws Failure corrupt */
export function parsePayload(bytes: Uint8Array, type: PayloadType): Payload {
  const what = 'the signed text'
  const root = asRecord(parseStrictJson(bytes, what), what, ['critical', 'optional'])
  const optional = root.get('optional')
  // cosign writes null where there is nothing
  if (optional !== null || type === 'atomic container signature') checkOptional(optional)
  const critical = asRecord(root.get('critical'), 'its critical part', ['type', 'image', 'identity'])
  const found = asText(critical.get('type'), 'its type')
  if (found !== type) {
    throw Failure.corrupt(`the signed text is of the type ${JSON.stringify(found)}, not ${JSON.stringify(type)}`)
  }
  const image = asRecord(critical.get('image'), 'its image', ['docker-manifest-digest'])
  const identity = asRecord(critical.get('identity'), 'its identity', ['docker-reference'])
  return {
    manifest: parseDigest(image.get('docker-manifest-digest'), 'its docker-manifest-digest'),
    reference: asText(identity.get('docker-reference'), 'its docker-reference'),
  }
}

/** Nothing in it decides anything, but what is known there has its type; so do the engines. */
function checkOptional(value: StrictJson | undefined): void {
  const known = ['creator', 'timestamp']
  if (!(value instanceof Map)) throw Failure.corrupt('its optional part is no JSON object')
  for (const [key, field] of value as ReadonlyMap<string, StrictJson>) {
    if (!known.includes(key)) continue
    if (key === 'creator' && typeof field !== 'string') throw Failure.corrupt('its creator is no text')
    if (key === 'timestamp' && !Number.isInteger(field)) throw Failure.corrupt('its timestamp is no whole number')
  }
}
