// TLS certificates for a registry on this machine, written in DER here: neither Node nor a clean Debian brings anything that makes one.
import { createPrivateKey, generateKeyPair, randomBytes, sign, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { promisify } from 'node:util'

/** PEM. The certificate is its own authority: who trusts `cert` trusts the server. */
export interface Certificate {
  cert: string
  key: string
}

const DAY_MS = 86_400_000
/** Clocks that are a little behind must not refuse it. */
const BACKDATED_MS = DAY_MS

// ASN.1 tags (X.690 8.1.2)
const INTEGER = 0x02
const BIT_STRING = 0x03
const OCTET_STRING = 0x04
const OID = 0x06
const UTF8_STRING = 0x0c
const GENERALIZED_TIME = 0x18
const SEQUENCE = 0x30
const SET = 0x31

function der(tag: number, ...parts: Uint8Array[]): Uint8Array {
  const content = Buffer.concat(parts)
  const { length } = content
  // X.690 8.1.3: short form, then one and two bytes of length; nothing here is longer
  const header = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Uint8Array.of(tag, ...header), content])
}

/** An object identifier whose components beyond the second are below 16384. */
function oid(...[first = 0, second = 0, ...rest]: number[]): Uint8Array {
  const bytes = rest.flatMap((each) => (each < 0x80 ? [each] : [(each >> 7) | 0x80, each & 0x7f]))
  return der(OID, Uint8Array.of(first * 40 + second, ...bytes))
}

// 1.2.840.10045.4.3.2 (RFC 5758 3.2)
const ECDSA_WITH_SHA256 = der(SEQUENCE, oid(1, 2, 840, 10045, 4, 3, 2))

function time(ms: number): Uint8Array {
  const text = new Date(ms).toISOString().replace(/[-:T]|\.\d+/g, '')
  return der(GENERALIZED_TIME, Buffer.from(text))
}

function name(commonName: string): Uint8Array {
  const attribute = der(SEQUENCE, oid(2, 5, 4, 3), der(UTF8_STRING, Buffer.from(commonName)))
  return der(SEQUENCE, der(SET, attribute))
}

/** `critical` extensions say so (RFC 5280 4.2). */
function extension(id: number, value: Uint8Array, critical: boolean): Uint8Array {
  const flag = critical ? [Uint8Array.of(0x01, 0x01, 0xff)] : []
  return der(SEQUENCE, oid(2, 5, 29, id), ...flag, der(OCTET_STRING, value))
}

/** GeneralName: a DNS name is [2], an IP address [7] (RFC 5280 4.2.1.6). */
function alternativeName(host: string): Uint8Array {
  if (isIP(host) === 4) return der(0x87, Uint8Array.from(host.split('.'), Number))
  if (host === '::1') return der(0x87, new Uint8Array(16).fill(1, 15))
  return der(0x82, Buffer.from(host))
}

/** A certificate for `hosts` (DNS names, IPv4 addresses, ::1), valid from yesterday for `days`. P-256, ECDSA with SHA-256. */
export async function selfSigned(hosts: readonly string[], days = 30): Promise<Certificate> {
  const now = Date.now()
  return await certify(hosts, Math.min(now, now + days * DAY_MS) - BACKDATED_MS, now + days * DAY_MS)
}

/**
 * A certificate for `hosts` from one time to another (ms since 1970).
 * @param issuer who vouches for it; undefined: it itself, as an authority
 */
export async function certify(
  hosts: readonly string[],
  from: number,
  to: number,
  issuer?: Certificate,
): Promise<Certificate> {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' })
  const subject = name(hosts[0] ?? 'localhost')
  // names that are made here have nothing but a common name
  const vouching = issuer && new X509Certificate(issuer.cert).subject.replace(/^CN=/, '')
  // RFC 5280 4.1.2.2: positive, at most 20 bytes
  const serial = randomBytes(16)
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40
  const extensions = der(
    SEQUENCE,
    extension(19, der(SEQUENCE, ...(issuer ? [] : [Uint8Array.of(0x01, 0x01, 0xff)])), true), // basicConstraints: a CA
    extension(17, der(SEQUENCE, ...hosts.map(alternativeName)), false), // subjectAltName
  )
  const body = der(
    SEQUENCE,
    der(0xa0, der(INTEGER, Uint8Array.of(2))), // version 3
    der(INTEGER, serial),
    ECDSA_WITH_SHA256,
    vouching === undefined ? subject : name(vouching), // issuer
    der(SEQUENCE, time(from), time(to)),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, extensions),
  )
  const signature = sign('sha256', body, {
    key: issuer ? createPrivateKey(issuer.key) : privateKey,
    dsaEncoding: 'der',
  })
  const bytes = der(SEQUENCE, body, ECDSA_WITH_SHA256, der(BIT_STRING, Uint8Array.of(0), signature))
  const lines =
    Buffer.from(bytes)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
}
