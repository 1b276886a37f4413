// Where things are by default: the store's root, the cache, and the socket of each mount.
import { createHash } from 'node:crypto'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { thisUser } from '../registry/places.ts'

export interface AgentPlaces {
  root: string
  cache: string
  /** Directory of the sockets, one a mounted directory. */
  sockets: string
}

/** This process's own. */
export function places(): AgentPlaces {
  return defaultPlaces(process.env, thisUser())
}

/** What systemd gives a service with RuntimeDirectory=, CacheDirectory= or StateDirectory=; else system directories for root, XDG ones for everybody else. */
export function defaultPlaces(env: NodeJS.ProcessEnv, uid: number): AgentPlaces {
  const places = userPlaces(env, uid)
  return {
    root: env.STATE_DIRECTORY ? join(firstOf(env.STATE_DIRECTORY), 'store') : places.root,
    cache: env.CACHE_DIRECTORY ? firstOf(env.CACHE_DIRECTORY) : places.cache,
    sockets: env.RUNTIME_DIRECTORY ? firstOf(env.RUNTIME_DIRECTORY) : places.sockets,
  }
}

/** Where what must outlive the cache lies: what systemd gives a service with StateDirectory=, else as in defaultPlaces. */
export function stateDirectory(env: NodeJS.ProcessEnv, uid: number): string {
  if (env.STATE_DIRECTORY) return firstOf(env.STATE_DIRECTORY)
  if (uid === 0) return '/var/lib/lazylayer'
  return join(absolute(env.XDG_STATE_HOME) ?? join(homedir(), '.local/state'), 'lazylayer')
}

/** A unit may name several directories (systemd.exec). */
function firstOf(directories: string): string {
  return directories.split(':')[0] as string // split gives one at least
}

function userPlaces(env: NodeJS.ProcessEnv, uid: number): AgentPlaces {
  if (uid === 0) {
    return { root: '/var/lib/lazylayer/store', cache: '/var/lib/lazylayer/cache', sockets: '/run/lazylayer' }
  }
  const home = homedir()
  const share = join(absolute(env.XDG_DATA_HOME) ?? join(home, '.local/share'), 'lazylayer')
  const cache = join(absolute(env.XDG_CACHE_HOME) ?? join(home, '.cache'), 'lazylayer')
  const runtime = absolute(env.XDG_RUNTIME_DIR)
  const run = runtime === undefined ? join(cache, 'run') : join(runtime, 'lazylayer')
  return { root: join(share, 'store'), cache, sockets: run }
}

/** Relative paths in these variables are invalid and ignored (XDG base directory specification). */
function absolute(path: string | undefined): string | undefined {
  return path?.startsWith('/') ? path : undefined
}

/** Where the devices of an EROFS mount are served. */
export function devicesFor(socket: string): string {
  return socket.replace(/\.sock$/, '.devices')
}

/** Where a detached agent's messages go while it runs. */
export function logFor(socket: string): string {
  return socket.replace(/\.sock$/, '.log')
}

/** A socket's path has at most 107 bytes, a directory's has no bound: so it is named by a hash. */
export function socketFor(sockets: string, dir: string): string {
  const name = createHash('sha256').update(resolve(dir)).digest('hex').slice(0, SOCKET_DIGITS)
  return join(sockets, `${name}.sock`)
}

const SOCKET_DIGITS = 16
const SOCKET_NAME = new RegExp(`^[0-9a-f]{${SOCKET_DIGITS}}\\.sock$`)

/** Whether a file in the folder of sockets is an agent's: what engines ask at may lie beside it. */
export function isAgentSocket(name: string): boolean {
  return SOCKET_NAME.test(name)
}
