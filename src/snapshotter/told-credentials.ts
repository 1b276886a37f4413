// What a request to pull an image tells of its credentials. Pure.
import { fromBinary } from '@bufbuild/protobuf'
import { parseRegistryReference, type RegistryReference } from '../image/reference.ts'
import { type Credentials, parseLogin } from '../registry/login.ts'
import { PullImageRequestSchema } from './generated/cri_pb.ts'

export interface ToldCredentials {
  reference: RegistryReference
  credentials: Credentials
}

/** gRPC over HTTP/2, "Length-Prefixed-Message": whether it is compressed, then four bytes of length. */
const HEAD_BYTES = 5
const DOCKER = 'docker.io'
/** What Docker Hub is called in files of credentials. */
const DOCKER_SERVERS: ReadonlySet<string> = new Set(['index.docker.io', 'registry-1.docker.io'])

/** @param message as it is on the wire. @returns undefined: it tells of none, or is no such request; whoever answers it says so */
export function toldCredentials(message: Uint8Array): ToldCredentials | undefined {
  if (message.length < HEAD_BYTES || message[0] !== 0) return undefined // clients of CRI compress nothing
  try {
    const { image, auth } = fromBinary(PullImageRequestSchema, message.subarray(HEAD_BYTES))
    if (image === undefined || auth === undefined) return undefined
    const { username, password, identityToken, serverAddress } = auth
    const reference = parseRegistryReference(image.image)
    if (!isFor(serverAddress, reference.host)) return undefined
    if (identityToken !== '') return { reference, credentials: { identityToken } }
    if (username !== '') return { reference, credentials: { username, password } }
    // base64 may end in zeros, which kubelet takes off, too
    const text = Buffer.from(auth.auth, 'base64').toString('utf8').replace(/\0+$/, '')
    return text === '' ? undefined : { reference, credentials: parseLogin(text) }
  } catch {
    return undefined // no such message, or no reference
  }
}

/** Whether credentials that are said to be a server's are this host's, as containerd decides it: those of another are shown to nobody. */
function isFor(serverAddress: string, host: string): boolean {
  if (serverAddress === '') return true
  const url = new URL(serverAddress.includes('://') ? serverAddress : `https://${serverAddress}`)
  return url.host === host || (host === DOCKER && DOCKER_SERVERS.has(url.host))
}
