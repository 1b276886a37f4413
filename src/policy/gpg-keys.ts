// Simple signing: whether one of a policy's OpenPGP keys signed a text. The cryptography and the keys' own validity are openpgp's.
import type { PublicKey } from 'openpgp'
import { describe, Failure } from '../errors.ts'
import { signedMessage } from './openpgp-packets.ts'

/** Keys that may sign. */
export interface GpgKeys {
  /**
   * What is signed, and by which key (fingerprint of the primary key, upper case hex).
   * @throws Failure corrupt, limit, unsupported, denied: why the signature does not count
   */
  verify(signature: Uint8Array): Promise<{ signed: Uint8Array; fingerprint: string }>
}

/** A keyring of a distribution has some ten. */
const KEYS_MAX = 256

/**
 * Each of `files` holds keys, ASCII-armored or not. A key that is expired or revoked now signs nothing.
 * @throws Failure corrupt, limit
 */
export async function readGpgKeys(files: readonly Uint8Array[]): Promise<GpgKeys> {
  // 40 ms to load, which only this kind of requirement needs
  const { readKeys, readMessage, config: defaults, enums } = await import('openpgp')
  const weak = new Set([...defaults.rejectHashAlgorithms, ...defaults.rejectMessageHashAlgorithms, enums.hash.sha1])
  const config = { rejectMessageHashAlgorithms: weak, ignoreUnsupportedPackets: false }
  const keys = new Map<string, PublicKey>()
  for (const file of files) {
    for (const block of blocks(file)) {
      try {
        const found =
          typeof block === 'string' ? await readKeys({ armoredKeys: block }) : await readKeys({ binaryKeys: block })
        for (const each of found) {
          const known = keys.get(each.getFingerprint())
          // one file may know what another does not: that the key was revoked
          keys.set(each.getFingerprint(), known === undefined ? each.toPublic() : await known.update(each.toPublic()))
        }
      } catch (cause) {
        throw Failure.corrupt('it holds no OpenPGP public keys that can be read', { cause })
      }
      if (keys.size > KEYS_MAX) throw Failure.limit(`there are more than ${KEYS_MAX} keys`)
    }
  }
  if (keys.size === 0) throw Failure.corrupt('there is no OpenPGP public key')
  const all = [...keys.values()]
  return {
    async verify(signature) {
      const binaryMessage = signedMessage(signature)
      const now = new Date()
      const { message, signatures } = await readMessage({ binaryMessage, config })
        .then(async (message) => ({ message, signatures: await message.verify(all, now, { ...defaults, ...config }) }))
        .catch((cause) => {
          throw Failure.corrupt('it is no OpenPGP message that can be read', { cause })
        })
      const [only, ...more] = signatures
      const signed = message.getLiteralData()
      if (only === undefined || more.length > 0 || signed === null)
        throw Failure.corrupt('it has not just one signature')
      const key = all.find((each) => each.getKeys(only.keyID).length > 0)
      if (key === undefined) {
        throw Failure.denied(`it is by key ${only.keyID.toHex().toUpperCase()}, which is none of the policy's`, {
          fix: 'Sign with one of them, or add this one to the policy.',
        })
      }
      const fingerprint = key.getFingerprint().toUpperCase()
      try {
        await only.verified
        const [packet] = (await only.signature).packets
        if (packet?.signatureType !== enums.signature.binary) throw new Error('it signs no bytes')
        // verified above was that the key was valid when it signed; as for gpg, it must be so still
        await key.getSigningKey(only.keyID, now)
      } catch (error) {
        throw Failure.denied(`it is not valid by key ${fingerprint}`, {
          why: reason(error),
          cause: error,
          fix: 'Sign again with a valid key, and export it to the policy.',
        })
      }
      return { signed, fingerprint }
    },
  }
}

/** The armored blocks of a text, or the bytes as they are. */
function blocks(file: Uint8Array): (string | Uint8Array)[] {
  const text = Buffer.from(file).toString('latin1')
  if (!text.includes('-----BEGIN PGP')) return [file]
  return text.match(/-----BEGIN PGP PUBLIC KEY BLOCK-----[\s\S]*?-----END PGP PUBLIC KEY BLOCK-----/g) ?? []
}

/** The library's sentences begin in upper case. */
function reason(error: unknown): string {
  const text = describe(error).replace(/^Error: /, '')
  return text.charAt(0).toLowerCase() + text.slice(1)
}
