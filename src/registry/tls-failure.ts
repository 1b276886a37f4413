// What a TLS connection failed of, and what to do: a certificate that is not believed, one of ours that is not, no TLS at all.
import type { DetailedPeerCertificate, TLSSocket } from 'node:tls'
import type { buildConnector } from 'undici'
import { Failure } from '../errors.ts'

/** When a certificate begins and ends, ms since 1970. */
interface Validity {
  from: number
  to: number
}

/** Of the chain that a failed connection was shown, the host's own first. */
const shown = new WeakMap<Error, readonly Validity[]>()
const plain = new WeakSet<Failure>()
/** Chains that lead round in circles end somewhere. */
const CHAIN_MAX = 16
/** Some certificates are for hundreds of names. */
const NAMES_MAX_LENGTH = 200

/** Whether it failed because the host speaks HTTP where TLS was spoken to it. */
export function speaksHttp(error: unknown): boolean {
  return error instanceof Failure && plain.has(error)
}

/** `connect`, which notes of what fails the certificates that were shown: the error itself does not have them. */
export function notingCertificates(connect: buildConnector.connector): buildConnector.connector {
  return (options, callback) => {
    let chain: readonly Validity[] = []
    const socket: unknown = connect(options, (...result) => {
      if (result[0] !== null) shown.set(result[0], chain)
      callback(...result)
    })
    // undici returns what it connects, and is typed as if it did not; its own listener ends a connection that is not believed
    const tls = socket as Partial<TLSSocket> | undefined
    tls?.prependOnceListener?.('secure', () => {
      chain = validities(tls.getPeerCertificate?.(true))
    })
  }
}

function validities(certificate: DetailedPeerCertificate | undefined): Validity[] {
  const found: Validity[] = []
  for (let each = certificate; each?.valid_to !== undefined && found.length < CHAIN_MAX; ) {
    found.push({ from: Date.parse(each.valid_from), to: Date.parse(each.valid_to) })
    const above: DetailedPeerCertificate | undefined = each.issuerCertificate
    each = above === each ? undefined : above
  }
  return found
}

const RENEW = 'Its operator has to renew it. If it is valid, this machine’s clock is wrong'

/** @returns undefined: the error is not about TLS */
export function tlsFailure(error: Error, code: string, host: string, now: number): Failure | undefined {
  const denied = (what: string, fix: string) => Failure.denied(`${host}: ${what}`, { cause: error, fix })
  const folder = `/etc/containers/certs.d/${host}`
  const clock = `it says ${day(now)}`
  if (
    /WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST/.test(code) ||
    /wrong version number/.test(error.message)
  ) {
    const failure = Failure.unavailable(`${host}: it does not speak TLS, and plain HTTP to it is not allowed`, {
      cause: error,
      why: 'it answers a TLS handshake with something else',
      fix: `If it is meant to speak plain HTTP, allow that: --tls-verify=false, or insecure = true for ${host} in registries.conf.`,
    })
    plain.add(failure)
    return failure
  }
  if (/ALERT_(PROTOCOL_VERSION|INSUFFICIENT_SECURITY)|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS_AVAILABLE/.test(code)) {
    return denied('it speaks no version or cipher of TLS that is safe', 'Its operator has to enable TLS 1.2 or later.')
  }
  if (/ALERT/.test(code)) {
    return denied(
      'it refuses the connection’s TLS',
      `If it wants a client certificate, put client.cert and client.key into ${folder}/; if they are there, ask its operator whether they are still valid and meant for it, and which ciphers it speaks.`,
    )
  }
  const chain = shown.get(error) ?? []
  if (code === 'CERT_HAS_EXPIRED') {
    const [own] = chain
    const when = chain.find((each) => each.to < now)
    const whose =
      own !== undefined && own.to >= now ? 'the certificate of an authority above its own' : 'its certificate'
    return denied(`${whose} has expired${when === undefined ? '' : ` on ${day(when.to)}`}`, `${RENEW}: ${clock}.`)
  }
  if (code === 'CERT_NOT_YET_VALID') {
    const when = chain.find((each) => each.from > now)
    return denied(
      `its certificate is not valid${when === undefined ? ' yet' : ` before ${day(when.from)}`}`,
      `Set this machine’s clock: ${clock}. If that is right, the operator of the registry has to wait, or make another.`,
    )
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID' || code === 'HOSTNAME_MISMATCH') {
    return Failure.denied(`${host}: its certificate is for other names`, {
      cause: error,
      why: `it is for ${namesOf(error) ?? 'none that is listed'}`,
      fix: 'Ask for it by such a name, or have its operator make a certificate for this one.',
    })
  }
  if (code === 'CERT_REVOKED') return denied('its certificate was revoked', 'Its operator has to make another one.')
  if (
    /INVALID_CA|INVALID_PURPOSE|PATH_LENGTH|CHAIN_TOO_LONG|SIGNATURE_FAILURE|UNABLE_TO_DEC|ERROR_IN_CERT|KEY_TOO_SMALL|MD_TOO_WEAK/.test(
      code,
    )
  ) {
    return denied('its certificate is not sound', 'Its operator has to make another one: no authority would help.')
  }
  if (/SELF_SIGNED/.test(code)) {
    const why = code === 'SELF_SIGNED_CERT_IN_CHAIN' ? 'it is of an authority of its own' : 'it is self-signed'
    return denied(
      `its certificate is not trusted: ${why}`,
      `If it is the right one, put it (or its authority’s) into ${folder}/ca.crt, or name the folder with --cert-dir.`,
    )
  }
  if (/CERT|VERIFY|X509|UNSPECIFIED/.test(code)) {
    return denied(
      'its certificate is not trusted: its authority is not known here',
      `Put its authority into ${folder}/ca.crt, or name the folder with --cert-dir. If the authority is a well-known one, the registry leaves out certificates between: its operator has to send them.`,
    )
  }
  return undefined
}

/** As Node lists them: `DNS:registry.example.com, IP Address:192.0.2.1`. */
function namesOf(error: Error): string | undefined {
  const certificate: unknown = Reflect.get(error, 'cert')
  const names: unknown = typeof certificate === 'object' && certificate && Reflect.get(certificate, 'subjectaltname')
  return typeof names === 'string' && names !== '' ? names.slice(0, NAMES_MAX_LENGTH) : undefined
}

function day(ms: number): string {
  return Number.isNaN(ms) ? 'an unknown day' : `${new Date(ms).toISOString().slice(0, 16).replace('T', ' ')} UTC`
}
