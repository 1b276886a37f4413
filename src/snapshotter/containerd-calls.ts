// How containerd's services are called at its socket, and calls say their namespace, of us to it and of it to us.
import { connect } from 'node:net'
import type { Transport } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'

/** The header that says it. */
export const NAMESPACE = 'containerd-namespace'

/** containerd answers from its own disk. */
const CALL_MS = 10_000

/** @param address of its socket; nothing is connected yet */
export function containerdAt(address: string): Transport {
  const nodeOptions = { createConnection: () => connect(address) }
  return createGrpcTransport({ baseUrl: 'http://localhost', nodeOptions })
}

/** The options of a call in a namespace that has one answer. */
export function callIn(namespace: string) {
  return { headers: { [NAMESPACE]: namespace }, timeoutMs: CALL_MS }
}
