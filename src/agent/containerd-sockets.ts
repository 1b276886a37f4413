// Where `serve --containerd` answers, and whose containerd asks there.
import { createHash } from 'node:crypto'
import { join, resolve } from 'node:path'
import { Failure } from '../errors.ts'

export interface ContainerdSocket {
  path: string
  /** Names of snapshotters: one that another name asks for is not there. */
  names: readonly string[]
  /** The socket of that containerd's own. */
  address: string
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/
/** unix(7): with the zero at its end it has 108 bytes. */
const PATH_MAX_BYTES = 107

/**
 * Each `[NAME=]SOCKET`; addresses in the same order, or one for all.
 * @param names of a socket that is given without one
 * @throws Failure usage
 */
export function containerdSockets(
  given: readonly string[],
  addresses: readonly string[],
  defaults: { names: readonly string[]; address: string },
): ContainerdSocket[] {
  if (addresses.length > 1 && addresses.length !== given.length) {
    throw Failure.usage(
      `--containerd-address was given ${addresses.length} times, and --containerd ${given.length} times`,
      {
        fix: 'Give one for all sockets, or one each, in the same order.',
      },
    )
  }
  const found = new Map<string, { names: string[]; address: string }>()
  for (const [i, text] of given.entries()) {
    const equals = text.indexOf('=')
    const name = equals < 0 || text.startsWith('/') ? undefined : text.slice(0, equals)
    const path = resolve(name === undefined ? text : text.slice(equals + 1))
    if (name !== undefined && !NAME.test(name))
      throw Failure.usage(`${JSON.stringify(name)} is no name of a snapshotter`)
    if (Buffer.byteLength(path) > PATH_MAX_BYTES) throw Failure.usage(`the path ${path} is too long for a socket`)
    const address = addresses[i] ?? addresses[0] ?? defaults.address
    const socket = found.get(path) ?? { names: [], address }
    if (socket.address !== address) throw Failure.usage(`${path} is given twice, for two containerds`)
    socket.names.push(...(name === undefined ? defaults.names : [name]))
    found.set(path, socket)
  }
  return [...found].map(([path, { names, address }]) => ({ path, names: [...new Set(names)], address }))
}

/** Where what one containerd knows by one name is kept: others remove what they do not know. */
export function folderOf(state: string, path: string, name: string): string {
  const socket = createHash('sha256').update(path).digest('hex').slice(0, 16)
  return join(state, socket, name)
}
