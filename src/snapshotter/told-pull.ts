// What a request to pull an image tells: where it is, and with which credentials. Pure.
import { fromBinary } from '@bufbuild/protobuf'
import { parseRegistryReference, type RegistryReference } from '../image/reference.ts'
import { type Credentials, parseLogin } from '../registry/login.ts'
import { type AuthConfig, PullImageRequestSchema } from './generated/cri_pb.ts'

export interface ToldPull {
  reference: RegistryReference
  /** Undefined: it has none, or another server's. */
  credentials: Credentials | undefined
}

/** gRPC over HTTP/2, "Length-Prefixed-Message": whether it is compressed, then four bytes of length. */
const HEAD_BYTES = 5
const DOCKER = 'docker.io'
/** What Docker Hub is called in files of credentials. */
const DOCKER_SERVERS: ReadonlySet<string> = new Set(['index.docker.io', 'registry-1.docker.io'])

/** @param message as it is on the wire. @returns undefined: it is no such request; whoever answers it says so */
export function toldPull(message: Uint8Array): ToldPull | undefined {
  if (message.length < HEAD_BYTES || message[0] !== 0) return undefined // clients of CRI compress nothing
  try {
    const { image, auth } = fromBinary(PullImageRequestSchema, message.subarray(HEAD_BYTES))
    if (image === undefined) return undefined
    const reference = parseRegistryReference(image.image)
    return { reference, credentials: auth && credentialsIn(auth, reference.host) }
  } catch {
    return undefined // no such message, or no reference
  }
}

function credentialsIn(auth: AuthConfig, host: string): Credentials | undefined {
  const { username, password, identityToken, serverAddress } = auth
  if (!isFor(serverAddress, host)) return undefined
  if (identityToken !== '') return { identityToken }
  if (username !== '') return { username, password }
  // base64 may end in zeros, which kubelet takes off, too
  const text = Buffer.from(auth.auth, 'base64').toString('utf8').replace(/\0+$/, '')
  return text === '' ? undefined : parseLogin(text)
}

/** Whether credentials that are said to be a server's are this host's, as containerd decides it: those of another are shown to nobody. */
function isFor(serverAddress: string, host: string): boolean {
  if (serverAddress === '') return true
  const url = URL.parse(serverAddress.includes('://') ? serverAddress : `https://${serverAddress}`)
  if (url === null) return false
  return url.host === host || (host === DOCKER && DOCKER_SERVERS.has(url.host))
}
