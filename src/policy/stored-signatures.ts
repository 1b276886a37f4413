// Finds the signatures of a manifest, where registries.d says that they lie. None of them is believed yet.
//
//   lookaside      LOOKASIDE/repository@sha256=<hex>/signature-1, -2, … up to the first that is not there      simple signing
//   attachments    the tag sha256-<hex>.sig of the image's own repository: a manifest, a layer a signature      sigstore
import { fileURLToPath } from 'node:url'
import { Failure } from '../errors.ts'
import { type Digest, digestOf, hex } from '../image/digest.ts'
import { type Descriptor, MANIFEST_MAX_BYTES, parseManifest } from '../image/manifest.ts'
import { SIGNATURE_MAX_BYTES } from './openpgp-packets.ts'
import type { Home } from './registries-d.ts'
import { readBytes } from './settings-file.ts'
import type { Named } from './signed-identity.ts'

/** The image's own repository, and the web: made by whoever speaks HTTP. */
export interface Sources {
  /** What the repository keeps under a tag; undefined where there is none. */
  manifest(tag: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array | undefined>
  /** A blob of the repository; its digest need not have been checked. */
  blob(descriptor: Descriptor, signal: AbortSignal): Promise<Uint8Array>
  /** A file of the web, asked for without any credentials; undefined where there is none. */
  file(url: URL, maxBytes: number, signal: AbortSignal): Promise<Uint8Array | undefined>
}

/** `at` says where it was found. */
export type StoredSignature =
  | { kind: 'simple'; at: string; bytes: Uint8Array }
  | { kind: 'sigstore'; at: string; payload: Uint8Array; annotations: Readonly<Record<string, string>> }

/** As many as engines read; each costs a request and a check. */
export const SIGNATURES_MAX = 128
const PAYLOAD_MAX_BYTES = 64 << 10
const SIGSTORE_TYPE = 'application/vnd.dev.cosign.simplesigning.v1+json'
const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'

/** @throws Failure limit, corrupt, usage (the lookaside's URL), or what `sources` throws */
export async function storedSignatures(
  image: Named,
  manifest: Digest,
  home: Home,
  sources: Sources,
  signal: AbortSignal,
): Promise<StoredSignature[]> {
  const simple = home.lookaside === undefined ? [] : await besides(image, manifest, home.lookaside, sources, signal)
  return [...simple, ...(home.attachments ? await attached(manifest, sources, signal) : [])]
}

async function besides(
  image: Named,
  manifest: Digest,
  lookaside: string,
  sources: Sources,
  signal: AbortSignal,
): Promise<StoredSignature[]> {
  const found: StoredSignature[] = []
  for (let number = 1; ; number++) {
    if (number > SIGNATURES_MAX) throw Failure.limit(`${lookaside} holds more than ${SIGNATURES_MAX} signatures`)
    const url = signatureUrl(lookaside, image, manifest, number)
    endIfAborted(signal)
    const bytes =
      url.protocol === 'file:'
        ? await readBytes(fileURLToPath(url), SIGNATURE_MAX_BYTES)
        : await sources.file(url, SIGNATURE_MAX_BYTES, signal)
    if (bytes === undefined) return found
    found.push({ kind: 'simple', at: url.href, bytes })
  }
}

/** @throws Failure usage */
export function signatureUrl(lookaside: string, { name }: Named, manifest: Digest, number: number): URL {
  const refuse = (why: string) =>
    Failure.usage(`the lookaside ${JSON.stringify(lookaside)} cannot be read`, {
      why,
      fix: 'Correct it in registries.d.',
    })
  if (!URL.canParse(lookaside)) throw refuse('it is no URL')
  const url = new URL(lookaside)
  if (url.username !== '' || url.password !== '') throw refuse('it holds credentials')
  if (/%2f|%00/i.test(url.pathname)) throw refuse('its path has an encoded slash or zero')
  if (url.protocol === 'file:' ? url.host !== '' : url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw refuse('it is neither file:///…, https://… nor http://…')
  }
  // the path of https://host is empty, whatever URL makes of it
  const base = url.pathname === '/' && !lookaside.endsWith('/') ? '' : url.pathname
  const repository = name.slice(name.indexOf('/') + 1)
  url.pathname = `${base}/${repository}@sha256=${hex(manifest)}/signature-${number}`
  return url
}

async function attached(manifest: Digest, sources: Sources, signal: AbortSignal): Promise<StoredSignature[]> {
  const tag = `sha256-${hex(manifest)}.sig`
  const bytes = await sources.manifest(tag, MANIFEST_MAX_BYTES, signal)
  if (bytes === undefined) return []
  const document = parseManifest(bytes, `sigstore attachment ${tag}`)
  if (document.mediaType !== OCI_MANIFEST || !('layers' in document)) {
    throw Failure.corrupt(`sigstore attachment ${tag} is ${document.mediaType}, not ${OCI_MANIFEST}`)
  }
  const layers = document.layers.filter((each) => each.mediaType === SIGSTORE_TYPE)
  if (layers.length > SIGNATURES_MAX) {
    throw Failure.limit(`sigstore attachment ${tag} has more than ${SIGNATURES_MAX} signatures`)
  }
  return await Promise.all(
    layers.map(async (layer, i) => {
      const at = `${tag}, layer ${i + 1}`
      if (layer.size > PAYLOAD_MAX_BYTES) {
        throw Failure.limit(`${at} has ${layer.size} bytes, at most ${PAYLOAD_MAX_BYTES} are read`)
      }
      const payload = await sources.blob(layer, signal)
      const got = digestOf(payload)
      if (got !== layer.digest) throw Failure.corrupt(`${at}: want ${layer.digest}, got ${got}`)
      return { kind: 'sigstore' as const, at, payload, annotations: layer.annotations }
    }),
  )
}

/** @throws Failure: the signal's own, else aborted */
export function endIfAborted(signal: AbortSignal): void {
  if (!signal.aborted) return
  const reason: unknown = signal.reason
  throw reason instanceof Failure ? reason : Failure.aborted('the policy was given up', { cause: reason })
}
