// A certificate authority of a test's own, and a server certificate for this machine's loopback names, made by openssl.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { succeed } from './command.ts'
import { program } from './needs.ts'

export interface Certificate {
  caFile: string
  certificateFile: string
  keyFile: string
}

/** Leaves only `ca.crt`, `server.cert.pem` and `server.key.pem` of use in `dir`. Valid for 127.0.0.1, ::1, localhost and
 * registry.example.com, for two days. */
export async function makeCertificate(dir: string): Promise<Certificate> {
  const at = (name: string) => join(dir, name)
  const openssl = (args: string[]) => succeed(program('openssl'), args)
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  await openssl([
    'req',
    '-x509',
    ...newKey,
    '-days',
    '2',
    '-subj',
    '/CN=lazylayer test CA',
    '-keyout',
    at('ca.pem'),
    '-out',
    at('ca.crt'),
  ])
  await openssl(['req', ...newKey, '-subj', '/CN=localhost', '-keyout', at('server.key.pem'), '-out', at('server.csr')])
  await writeFile(
    at('server.ext'),
    'subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost,DNS:registry.example.com\nextendedKeyUsage=serverAuth\n',
  )
  const sign = [
    '-CA',
    at('ca.crt'),
    '-CAkey',
    at('ca.pem'),
    '-CAcreateserial',
    '-days',
    '2',
    '-extfile',
    at('server.ext'),
  ]
  await openssl(['x509', '-req', '-in', at('server.csr'), ...sign, '-out', at('server.cert.pem')])
  return { caFile: at('ca.crt'), certificateFile: at('server.cert.pem'), keyFile: at('server.key.pem') }
}
