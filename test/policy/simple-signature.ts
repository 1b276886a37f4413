// A simple signature by a key of its own, as GnuPG would make it.
import { createMessage, generateKey, sign } from 'openpgp'
import { type Digest, hex } from '../../src/image/digest.ts'

/**
 * @param repository as signatures are filed: the path, and where the lookaside is shared by registries also the host
 * @returns the armored public key, the signature, and its place below the lookaside
 */
export async function simpleSignature(
  repository: string,
  reference: string,
  manifest: Digest,
): Promise<{ key: string; place: string; signature: Uint8Array }> {
  const { privateKey, publicKey } = await generateKey({ userIDs: [{ name: 'signer' }], type: 'ecc', format: 'object' })
  const text = JSON.stringify({
    critical: {
      type: 'atomic container signature',
      image: { 'docker-manifest-digest': manifest },
      identity: { 'docker-reference': reference },
    },
    optional: {},
  })
  const message = await createMessage({ binary: new TextEncoder().encode(text) })
  const signature = await sign({ message, signingKeys: privateKey, format: 'binary' })
  return {
    key: publicKey.armor(),
    place: `${repository}@sha256=${hex(manifest)}/signature-1`,
    signature: new Uint8Array(signature),
  }
}
