// Where user names and passwords come from: --creds, --creds-file, the auth files of Podman and Docker, and credential helpers.
// Nothing here is logged, and no message holds what a file or a helper said.
import { basename, join } from 'node:path'
import { describe, Failure } from '../errors.ts'
import { withoutAlias } from '../image/reference.ts'
import { askHelper } from './credential-helper.ts'
import { readText } from './file.ts'
import type { Credentials, Login } from './login.ts'
import { configHome, type Places } from './places.ts'

/** A login that goes to no other host. */
export interface HostLogin extends Login {
  /** `host[:port]` */
  host: string
}

/** Where a registry's credentials are looked for; asked again whenever the registry refuses. */
export interface Keyring {
  /**
   * @param refused what the registry has just refused: not found again where there is anything else to try
   * @throws Failure usage (malformed file), system, timeout (a helper)
   */
  find(host: string, repository: string, refused?: Credentials): Promise<Credentials | undefined>
}

/** What Docker calls its hub in auth files and to helpers. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/'
/** Of registries.conf: the auth files, among helpers. */
const AUTH_FILES = 'containers-auth.json'
/** As `docker login` wrote it long ago: hosts at the top, and nothing else. */
const LEGACY_FILE = '.dockercfg'
/** A message names a program and a host; beyond so many nobody reads them. */
const MESSAGES_MAX = 100

/** The auth files in the order in which they are asked. One that was named is the only one. */
export function authFiles(places: Places, authfile?: string): string[] {
  const { env } = places
  const named = authfile ?? (env.REGISTRY_AUTH_FILE || undefined)
  if (named !== undefined) return [named]
  return [
    join(
      env.XDG_RUNTIME_DIR ? join(env.XDG_RUNTIME_DIR, 'containers') : join(places.run, `${places.uid}`),
      'auth.json',
    ),
    join(configHome(places), 'containers', 'auth.json'),
    join(env.DOCKER_CONFIG || join(places.home, '.docker'), 'config.json'),
    join(places.home, LEGACY_FILE),
  ]
}

/** One login for one host, instead of whatever `others` have for that. */
export function hostKeyring({ host, username, password }: HostLogin, others: Keyring): Keyring {
  return {
    find: async (of, repository, refused) =>
      of === host ? { username, password } : await others.find(of, repository, refused),
  }
}

/** The file that --creds-file names; it must exist, and is read anew at every call. */
export function namedFileKeyring(path: string, places: Places, told: (message: string) => void): Keyring {
  const once = saidOnce(told)
  return {
    find: async (host, repository) => await findIn(await readAuthFile(path), host, repository, places.env, once),
  }
}

/** @throws Failure usage (absent, malformed), system */
export async function readAuthFile(path: string): Promise<AuthFile> {
  const text = await readText(path)
  if (text === undefined)
    throw Failure.usage(`${path} does not exist`, { why: 'it was named as a file of credentials' })
  return parseAuthFile(text, path)
}

/**
 * Reads the files anew at every call, so that a login or a rotated password counts at once.
 * @param told takes what went wrong with a store of credentials, once
 */
export function fileKeyring(places: Places, authfile?: string, told: (message: string) => void = () => {}): Keyring {
  const named = authfile !== undefined || Boolean(places.env.REGISTRY_AUTH_FILE)
  const once = saidOnce(told)
  return {
    async find(host, repository) {
      for (const path of authFiles(places, authfile)) {
        const text = await readText(path)
        if (text === undefined && named)
          throw Failure.usage(`${path} does not exist`, { why: 'it was named as auth file' })
        if (text === undefined) continue
        const legacy = !named && basename(path) === LEGACY_FILE
        const found = await findIn(parseAuthFile(text, path, legacy), host, repository, places.env, once)
        if (found) return found
      }
      return undefined
    },
  }
}

/**
 * The helpers that registries.conf names, in their order, the auth files among them; without any, the files alone. One that fails
 * matters only when no other has an answer.
 * @param names `credential-helpers`, read anew at every call
 */
export function helpersKeyring(names: () => Promise<readonly string[]>, files: Keyring, places: Places): Keyring {
  return {
    async find(host, repository, refused) {
      const all = await names()
      let failure: unknown
      for (const name of all.length === 0 ? [AUTH_FILES] : all) {
        try {
          const asked = name === AUTH_FILES ? files.find(host, repository, refused) : askHelper(name, host, places.env)
          const found = await asked
          if (found !== undefined) return found
        } catch (error) {
          failure ??= error
        }
      }
      if (failure !== undefined) throw failure
      return undefined
    },
  }
}

/** Messages of one kind are few; each is said once. */
function saidOnce(told: (message: string) => void): (message: string) => void {
  const said = new Set<string>()
  return (message) => {
    if (said.has(message) || said.size >= MESSAGES_MAX) return
    said.add(message)
    told(message)
  }
}

/** What an auth file says. */
export interface AuthFile {
  auths: ReadonlyMap<string, Credentials>
  /** Host -> name of its helper. */
  helpers: ReadonlyMap<string, string>
  /** The helper that keeps everything else. */
  store: string | undefined
  /** Its keys are hosts, or URLs without a scheme. */
  legacy: boolean
}

type Json = Record<string, unknown>

function object(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {}
}

/** @throws Failure usage: without the parser's message, which would quote the file */
export function parseAuthFile(text: string, path: string, legacy = false): AuthFile {
  let raw: Json
  try {
    raw = object(JSON.parse(text))
  } catch {
    throw Failure.usage(`${path} is no JSON`)
  }
  const auths = new Map<string, Credentials>()
  for (const [key, value] of Object.entries(legacy ? raw : object(raw.auths))) {
    const credentials = entry(object(value))
    if (credentials) auths.set(key, credentials)
  }
  if (legacy) return { auths, helpers: new Map(), store: undefined, legacy }
  const helpers = new Map<string, string>()
  for (const [host, name] of Object.entries(object(raw.credHelpers))) {
    if (typeof name === 'string') helpers.set(host, name)
  }
  return { auths, helpers, store: typeof raw.credsStore === 'string' ? raw.credsStore : undefined, legacy }
}

function entry(value: Json): Credentials | undefined {
  if (typeof value.identitytoken === 'string' && value.identitytoken !== '') {
    return { identityToken: value.identitytoken }
  }
  if (typeof value.auth === 'string' && value.auth !== '') {
    const login = Buffer.from(value.auth, 'base64').toString('utf8')
    const colon = login.indexOf(':')
    // docker pads old entries with NUL
    if (colon > 0) return { username: login.slice(0, colon), password: login.slice(colon + 1).replace(/\0+$/, '') }
    return undefined
  }
  if (typeof value.username === 'string' && typeof value.password === 'string' && value.username !== '') {
    return { username: value.username, password: value.password }
  }
  return undefined
}

/** `host/a/b`, `host/a`, `host`: the longest key wins. */
export function keys(host: string, repository: string): string[] {
  const parts = repository.split('/')
  return [...parts.map((_, i) => `${host}/${parts.slice(0, parts.length - i).join('/')}`), host]
}

/** The host that a key of an auth file is for, where `docker login` wrote a URL; in .dockercfg it does without a scheme, too. */
function hostOfKey(key: string, legacy: boolean): string {
  const bare = key.replace(/^(?:http:\/\/)?(?:https:\/\/)?/, '')
  return withoutAlias(legacy || bare !== key ? bare.replace(/\/.*$/s, '') : key)
}

/** @param told takes what keeps a store of credentials from being asked */
async function findIn(
  file: AuthFile,
  host: string,
  repository: string,
  env: Places['env'],
  told: (message: string) => void,
): Promise<Credentials | undefined> {
  const server = host === 'docker.io' ? DOCKER_HUB_KEY : host
  for (const key of [host, server]) {
    const name = file.helpers.get(key)
    if (name !== undefined) return await askHelper(name, key, env)
  }
  for (const key of file.legacy ? [host] : keys(host, repository)) {
    const found = file.auths.get(key)
    if (found) return found
  }
  for (const [key, found] of file.auths) if (hostOfKey(key, file.legacy) === withoutAlias(host)) return found
  if (file.store === undefined) return undefined
  try {
    return await askHelper(file.store, server, env)
  } catch (error) {
    // it was named for all hosts, public ones too: these are no worse off than without it
    if (!(error instanceof Failure)) throw error
    told(`${describe(error)}; going on without the credentials that it may have`)
    return undefined
  }
}
