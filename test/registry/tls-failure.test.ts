import { createServer } from 'node:https'
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net'
import type { TlsOptions } from 'node:tls'
import { createServer as createTlsServer } from 'node:tls'
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { type Certificate, certify, selfSigned } from '../../src/build/certificate.ts'
import type { Failure } from '../../src/errors.ts'
import type { Platform } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import { tlsFailure } from '../../src/registry/tls-failure.ts'
import { Settings } from '../fake/settings.ts'

const AMD64: Platform = { os: 'linux', architecture: 'amd64' }
const DAY_MS = 86_400_000
const NOW = Date.now()
const HERE = ['127.0.0.1', 'localhost']

let settings: Settings
let authority: Certificate
let expiredAuthority: Certificate
const servers: Server[] = []

beforeAll(async () => {
  authority = await certify(['an authority'], NOW - DAY_MS, NOW + DAY_MS)
  expiredAuthority = await certify(['an old authority'], NOW - 9 * DAY_MS, NOW - 2 * DAY_MS)
})

beforeEach(async () => {
  settings = await Settings.make()
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  for (const each of servers.splice(0)) each.close()
})

async function listen(server: Server): Promise<string> {
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

const secure = (options: TlsOptions) => listen(createServer(options, (_, response) => response.writeHead(404).end()))

/** @param trusted PEM that the host's folder of authorities holds */
async function failure(host: string, trusted?: string): Promise<Failure> {
  if (trusted !== undefined) await settings.trust(host, trusted)
  const registries = settings.registries({ limits: { attempts: 1 } })
  const error = await registries
    .source(parseReference(`${host}/team/app:v1`))
    .resolve(AMD64)
    .catch((error: unknown) => error)
  return error as Failure
}

const minute = (ms: number) => `${new Date(ms).toISOString().slice(0, 16).replace('T', ' ')} UTC`

/** What is said, of a certificate for these hosts and times, and of what is trusted. */
async function check(made: Certificate, trusted: string | undefined, what: string, fix: RegExp): Promise<void> {
  const host = await secure({ ...made })
  const found = await failure(host, trusted)
  expect(found).toMatchObject({ code: 'denied', message: `${host}: ${what}`, fix: expect.stringMatching(fix) })
}

test('an expired certificate is said to have expired, when, and that it has to be renewed', async () => {
  const expired = await certify(HERE, NOW - 9 * DAY_MS, NOW - 3 * DAY_MS)
  const said = `its certificate has expired on ${minute(NOW - 3 * DAY_MS)}`
  const fix = /^(?!.*authority).*renew/
  await check(expired, expired.cert, said, fix)
  const leaf = await certify(HERE, NOW - 9 * DAY_MS, NOW - 3 * DAY_MS, authority)
  await check(leaf, authority.cert, said, fix)
})

test('the certificate of an authority may be what has expired', async () => {
  const leaf = await certify(HERE, NOW - DAY_MS, NOW + DAY_MS, expiredAuthority)
  const said = `the certificate of an authority above its own has expired on ${minute(NOW - 2 * DAY_MS)}`
  await check(leaf, expiredAuthority.cert, said, /renew/)
})

test('a certificate that is not valid yet is said to be so, from when on it is, and what this machine takes for now', async () => {
  const early = await certify(HERE, NOW + 2 * DAY_MS, NOW + 9 * DAY_MS)
  const said = `its certificate is not valid before ${minute(NOW + 2 * DAY_MS)}`
  await check(early, early.cert, said, /^Set this machine’s clock: it says \d{4}-/)
})

test('a certificate for other names is said to be so, and for which', async () => {
  const other = await selfSigned(['other.example.com'])
  const host = await secure({ ...other })
  expect(await failure(host, other.cert)).toMatchObject({
    code: 'denied',
    message: `${host}: its certificate is for other names`,
    why: expect.stringContaining('other.example.com'),
    fix: expect.stringMatching(/^(?!.*authority)/),
  })
})

test('who may vouch for it is asked only where nobody does', async () => {
  const put = /certs\.d\/127\.0\.0\.1:\d+\/ca\.crt.*--cert-dir/
  await check(await selfSigned(HERE), undefined, 'its certificate is not trusted: it is self-signed', put)
  const leaf = await certify(HERE, NOW - DAY_MS, NOW + DAY_MS, authority)
  await check(leaf, undefined, 'its certificate is not trusted: its authority is not known here', put)
  const chain = { ...leaf, cert: leaf.cert + authority.cert }
  await check(chain, undefined, 'its certificate is not trusted: it is of an authority of its own', put)
})

test('a certificate that an end entity vouches for is not sound', async () => {
  const middle = await certify(['no authority'], NOW - DAY_MS, NOW + DAY_MS, authority)
  const leaf = await certify(HERE, NOW - DAY_MS, NOW + DAY_MS, middle)
  await check(
    { ...leaf, cert: leaf.cert + middle.cert },
    authority.cert,
    'its certificate is not sound',
    /make another one/,
  )
})

test('a host that speaks plain HTTP is said to, and how to allow it, at once', async () => {
  const { createServer: createHttpServer } = await import('node:http')
  const asked: string[] = []
  const http = await listen(createHttpServer((request, response) => response.end(asked.push(request.url ?? ''))))
  const banner = await listen(
    createTcpServer((socket) => socket.on('error', () => {}).end('HTTP/1.0 400 Bad Request\r\n\r\n')),
  )
  for (const host of [http, banner]) {
    expect(await failure(host)).toMatchObject({
      code: 'unavailable',
      message: `${host}: it does not speak TLS, and plain HTTP to it is not allowed`,
      why: 'it answers a TLS handshake with something else', // without OpenSSL's words
      fix: expect.stringMatching(/--tls-verify=false, or insecure = true for 127\.0\.0\.1:\d+ in registries\.conf/),
    })
  }
  expect(asked).toEqual([])
})

test('a client certificate that is missing, or not taken, is told from an unsafe TLS', async () => {
  const strict = { ...(await selfSigned(HERE)), ca: authority.cert, requestCert: true, rejectUnauthorized: true }
  // in TLS 1.3 the alert comes when the handshake is done, and a reset may overtake it
  const host = await secure({ ...strict, maxVersion: 'TLSv1.2' })
  const wanted = {
    code: 'denied',
    message: `${host}: it refuses the connection’s TLS`,
    fix: expect.stringContaining(`client.cert and client.key into /etc/containers/certs.d/${host}/`),
  }
  expect(await failure(host, strict.cert)).toMatchObject(wanted)
  // servers in Go, and OpenSSL's own, say what they have against a certificate of ours
  for (const alert of ['TLSV1_ALERT_UNKNOWN_CA', 'SSLV3_ALERT_BAD_CERTIFICATE', 'SSLV3_ALERT_CERTIFICATE_EXPIRED']) {
    expect(tlsFailure(new Error(alert), `ERR_SSL_${alert}`, host, NOW)).toMatchObject(wanted)
  }

  const old = await listen(
    createTlsServer({
      ...(await selfSigned(HERE)),
      minVersion: 'TLSv1',
      maxVersion: 'TLSv1.1',
      ciphers: 'ALL@SECLEVEL=0',
    }),
  )
  expect(await failure(old)).toMatchObject({
    code: 'denied',
    message: `${old}: it speaks no version or cipher of TLS that is safe`,
    fix: expect.stringContaining('TLS 1.2'),
  })
})

test.each([
  'CERT_REVOKED',
  'INVALID_CA',
  'INVALID_PURPOSE',
  'CERT_SIGNATURE_FAILURE',
  'CERT_CHAIN_TOO_LONG',
  'PATH_LENGTH_EXCEEDED',
])('%s asks for another certificate, not for an authority', (code) => {
  const found = tlsFailure(new Error(code), code, 'registry.example.com', NOW)
  expect(found).toMatchObject({ code: 'denied', fix: expect.stringMatching(/^(?!Put ).*make another one/) })
})

test('other errors are none of TLS', () => {
  for (const code of ['ECONNREFUSED', 'ENOTFOUND', 'ETIMEDOUT', 'UND_ERR_SOCKET', 'EPIPE']) {
    expect(tlsFailure(new Error('x'), code, 'registry.example.com', NOW)).toBeUndefined()
  }
})
