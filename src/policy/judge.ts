// Judges one signature by one requirement of a policy: its key, then its text, then what the text says.
import type { KeyObject } from 'node:crypto'
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { type GpgKeys, readGpgKeys } from './gpg-keys.ts'
import { type PayloadType, parsePayload } from './payload.ts'
import { checkReceipt } from './rekor.ts'
import type { KeySource, Requirement } from './requirements.ts'
import { readBytes } from './settings-file.ts'
import { type Named, namedText, type SignedIdentity, whyNotFor } from './signed-identity.ts'
import { isSignedBy, readPublicKey } from './sigstore-keys.ts'
import type { StoredSignature } from './stored-signatures.ts'
import { fromBase64 } from './strict-json.ts'

/** An image as its signatures must mean it. */
export interface Signed {
  image: Named
  manifest: Digest
}

/** A requirement with its keys read. */
export interface Judge {
  /** Which signatures it is about. */
  readonly kind: StoredSignature['kind']
  /** Who signed. @throws Failure: why the signature does not count */
  judge(signature: StoredSignature, signed: Signed): Promise<string>
}

const SIGNATURE = 'dev.cosignproject.cosign/signature'
const BUNDLE = 'dev.sigstore.cosign/bundle'

/** @throws Failure unsupported (not evaluated here), usage, system, corrupt (keys that cannot be read) */
export async function judgeFor(requirement: Extract<Requirement, { identity: SignedIdentity }>): Promise<Judge> {
  const { identity } = requirement
  if (requirement.type === 'signedBy') {
    if (requirement.keyType !== 'GPGKeys') {
      throw Failure.unsupported(`signedBy with keyType ${requirement.keyType} is not evaluated`, {
        fix: 'Use keyType GPGKeys.',
      })
    }
    const keys = await read(requirement.keys, (files) => readGpgKeys(files))
    return { kind: 'simple', judge: (signature, signed) => judgeSimple(signature, signed, keys, identity) }
  }
  if (requirement.keys === 'fulcio' || requirement.keys === 'pki') {
    throw Failure.unsupported(`sigstoreSigned by ${requirement.keys} is not evaluated`, {
      why: 'certificates are not checked here, keys are',
      fix: 'Sign with a key and name it by keyPath, or serve with another --diffid.',
    })
  }
  const keys = await read(requirement.keys, readAll)
  const logs = requirement.rekor === undefined ? undefined : await read(requirement.rekor, readAll)
  if (logs?.some((each) => each.asymmetricKeyType !== 'ec')) {
    throw Failure.unsupported('a Rekor public key of the policy is not ECDSA')
  }
  return { kind: 'sigstore', judge: (signature, signed) => judgeSigstore(signature, signed, { keys, logs, identity }) }
}

async function readAll(files: readonly Uint8Array[]): Promise<KeyObject[]> {
  return files.map(readPublicKey)
}

/** Files are read anew each time, so that a key that was replaced counts at once. */
async function read<T>(source: KeySource, parse: (files: readonly Uint8Array[]) => Promise<T>): Promise<T> {
  const from = 'paths' in source ? source.paths.join(', ') : 'in the policy itself'
  const files = 'paths' in source ? await Promise.all(source.paths.map(file)) : source.contents
  try {
    return await parse(files)
  } catch (cause) {
    throw Failure.usage(`the policy's keys (${from}) cannot be used`, { cause, fix: 'Export the public keys again.' })
  }
}

async function file(path: string): Promise<Uint8Array> {
  const bytes = await readBytes(path)
  if (bytes !== undefined) return bytes
  throw Failure.usage(`the policy's key ${path} is not there`, { fix: 'Put it there, or correct the policy.' })
}

async function judgeSimple(
  signature: StoredSignature,
  signed: Signed,
  keys: GpgKeys,
  identity: SignedIdentity,
): Promise<string> {
  if (signature.kind !== 'simple') throw new TypeError('a sigstore signature went to the wrong judge')
  const { signed: text, fingerprint } = await keys.verify(signature.bytes)
  checkText(text, 'atomic container signature', signed, identity)
  return `GPG key ${fingerprint}`
}

async function judgeSigstore(
  signature: StoredSignature,
  signed: Signed,
  by: { keys: readonly KeyObject[]; logs: readonly KeyObject[] | undefined; identity: SignedIdentity },
): Promise<string> {
  if (signature.kind !== 'sigstore') throw new TypeError('a simple signature went to the wrong judge')
  const { payload, annotations } = signature
  const bytes = fromBase64(annotation(annotations, SIGNATURE), `its ${SIGNATURE}`)
  const number = by.keys.findIndex((key) => isSignedBy(key, payload, bytes))
  const key = by.keys[number]
  if (key === undefined) {
    throw Failure.denied("it is by none of the policy's keys, or its payload was changed", {
      fix: "Sign with the private half of the policy's key.",
    })
  }
  if (by.logs !== undefined) {
    checkReceipt(annotation(annotations, BUNDLE), by.logs, { payload, signature: bytes, key })
  }
  checkText(payload, 'cosign container image signature', signed, by.identity)
  return `sigstore key ${number + 1} of the policy`
}

/** What a registry says is bounded as everything of a manifest; what is not there is no text. */
function annotation(annotations: Readonly<Record<string, string>>, key: string): string {
  const found = annotations[key]
  if (found === undefined) throw Failure.corrupt(`its annotation ${key} is missing`)
  return found
}

/** The digest first: what a signature says of other manifests is of no interest. */
function checkText(bytes: Uint8Array, type: PayloadType, { image, manifest }: Signed, identity: SignedIdentity): void {
  const payload = parsePayload(bytes, type)
  if (payload.manifest !== manifest) {
    throw Failure.denied(`it is over another manifest, ${payload.manifest}, not over ${manifest}`, {
      fix: `Sign ${namedText(image)} again.`,
    })
  }
  const why = whyNotFor(identity, image, payload.reference)
  if (why !== undefined) {
    throw Failure.denied(why, { fix: 'Sign under that name, or have signedIdentity of the policy allow the other.' })
  }
}

/** As `describe`, with what to do. */
export function advice(error: unknown): string {
  const fix = error instanceof Failure ? error.fix : undefined
  return fix === undefined ? describe(error) : `${describe(error)} (${fix.replace(/\.$/, '')})`
}
