// Where user names and passwords come from: --creds, --creds-file, the auth files of Podman and Docker, and credential helpers.
// Nothing here is logged, and no message holds what a file or a helper said.
import { execFile } from 'node:child_process'
import { isAbsolute, join } from 'node:path'
import { Failure } from '../errors.ts'
import { readText } from './file.ts'
import { configHome, type Places } from './places.ts'

/** A user name and a password. */
export interface Login {
  username: string
  password: string
}

/** A login that goes to no other host. */
export interface HostLogin extends Login {
  /** `host[:port]` */
  host: string
}

/** A login, or an identity token that a token service turns into access tokens. */
export type Credentials = Login | { identityToken: string }

/** Where a registry's credentials are looked for; asked again whenever the registry refuses. */
export interface Keyring {
  /**
   * @param refused what the registry has just refused: not found again where there is anything else to try
   * @throws Failure usage (malformed file), system, timeout (a helper)
   */
  find(host: string, repository: string, refused?: Credentials): Promise<Credentials | undefined>
}

/** A helper may ask a hardware token or a cloud; nobody waits longer for it. */
const HELPER_DEADLINE_MS = 10_000
const HELPER_ANSWER_MAX_BYTES = 1 << 20
/** What Docker calls its hub in auth files and to helpers. */
const DOCKER_HUB_KEYS = ['https://index.docker.io/v1/', 'index.docker.io']

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
  ]
}

/** `user:password`. @throws Failure usage */
export function parseLogin(text: string): Login {
  const colon = text.indexOf(':')
  if (colon <= 0) {
    throw Failure.usage('--creds is not USER:PASSWORD', { fix: 'Put a colon between user name and password.' })
  }
  return { username: text.slice(0, colon), password: text.slice(colon + 1) }
}

/** One login for one host, instead of whatever `others` have for that. */
export function hostKeyring({ host, username, password }: HostLogin, others: Keyring): Keyring {
  return {
    find: async (of, repository, refused) =>
      of === host ? { username, password } : await others.find(of, repository, refused),
  }
}

/** The file that --creds-file names; it must exist, and is read anew at every call. */
export function namedFileKeyring(path: string, places: Places): Keyring {
  return { find: async (host, repository) => await findIn(await readAuthFile(path), host, repository, places.env) }
}

/** @throws Failure usage (absent, malformed), system */
export async function readAuthFile(path: string): Promise<AuthFile> {
  const text = await readText(path)
  if (text === undefined)
    throw Failure.usage(`${path} does not exist`, { why: 'it was named as a file of credentials' })
  return parseAuthFile(text, path)
}

/** Reads the files anew at every call, so that a login or a rotated password counts at once. */
export function fileKeyring(places: Places, authfile?: string): Keyring {
  const named = authfile !== undefined || Boolean(places.env.REGISTRY_AUTH_FILE)
  return {
    async find(host, repository) {
      for (const path of authFiles(places, authfile)) {
        const text = await readText(path)
        if (text === undefined && named)
          throw Failure.usage(`${path} does not exist`, { why: 'it was named as auth file' })
        if (text === undefined) continue
        const found = await findIn(parseAuthFile(text, path), host, repository, places.env)
        if (found) return found
      }
      return undefined
    },
  }
}

/** What an auth file says. */
export interface AuthFile {
  auths: ReadonlyMap<string, Credentials>
  /** Host -> name of its helper. */
  helpers: ReadonlyMap<string, string>
  /** The helper that keeps everything else. */
  store: string | undefined
}

type Json = Record<string, unknown>

function object(value: unknown): Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {}
}

/** @throws Failure usage: without the parser's message, which would quote the file */
export function parseAuthFile(text: string, path: string): AuthFile {
  let raw: Json
  try {
    raw = object(JSON.parse(text))
  } catch {
    throw Failure.usage(`${path} is no JSON`)
  }
  const auths = new Map<string, Credentials>()
  for (const [key, value] of Object.entries(object(raw.auths))) {
    const credentials = entry(object(value))
    if (credentials) auths.set(key, credentials)
  }
  const helpers = new Map<string, string>()
  for (const [host, name] of Object.entries(object(raw.credHelpers))) {
    if (typeof name === 'string') helpers.set(host, name)
  }
  return { auths, helpers, store: typeof raw.credsStore === 'string' ? raw.credsStore : undefined }
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

/** `host/a/b`, `host/a`, `host`: the longest key wins; then what Docker wrote before there were such keys. */
export function keys(host: string, repository: string): string[] {
  const parts = repository.split('/')
  const namespaced = parts.map((_, i) => `${host}/${parts.slice(0, parts.length - i).join('/')}`)
  const legacy = [`https://${host}`, `https://${host}/`, `https://${host}/v1/`, `https://${host}/v2/`, `http://${host}`]
  return [...namespaced, host, ...(host === 'docker.io' ? DOCKER_HUB_KEYS : []), ...legacy]
}

async function findIn(
  file: AuthFile,
  host: string,
  repository: string,
  env: Places['env'],
): Promise<Credentials | undefined> {
  const wanted = keys(host, repository)
  const server = host === 'docker.io' ? (DOCKER_HUB_KEYS[0] ?? host) : host
  for (const key of [host, server]) {
    const name = file.helpers.get(key)
    if (name !== undefined) return await askHelper(name, key, env)
  }
  for (const key of wanted) {
    const found = file.auths.get(key)
    if (found) return found
  }
  return file.store === undefined ? undefined : await askHelper(file.store, server, env)
}

/** Runs `docker-credential-NAME get` with the server on its input. No credentials there is no error. */
async function askHelper(name: string, server: string, env: Places['env']): Promise<Credentials | undefined> {
  // a name with a slash would run any program
  if (!/^[\w.-]+$/.test(name) || isAbsolute(name))
    throw Failure.usage(`${JSON.stringify(name)} is no credential helper`)
  const program = `docker-credential-${name}`
  const answer = await new Promise<string | undefined>((resolve, reject) => {
    const options = {
      timeout: HELPER_DEADLINE_MS,
      killSignal: 'SIGKILL',
      maxBuffer: HELPER_ANSWER_MAX_BYTES,
      env,
    } as const
    const child = execFile(program, ['get'], options, (error, stdout) => {
      if (error === null) resolve(stdout)
      else if (stdout.includes('credentials not found')) resolve(undefined)
      else if (error.killed === true)
        reject(Failure.timeout(`${program} did not answer within ${HELPER_DEADLINE_MS} ms`))
      else if (error.code === 'ENOENT')
        reject(Failure.usage(`${program} is not installed`, { why: `an auth file names it for ${server}` }))
      else
        reject(
          Failure.denied(`${program} failed with ${error.code ?? error.signal}`, {
            why: `no credentials for ${server}`,
          }),
        )
    })
    // a helper that does not read its input ends the pipe: its exit tells
    child.stdin?.on('error', () => {})
    child.stdin?.end(server)
  })
  if (answer === undefined) return undefined
  let raw: Json
  try {
    raw = object(JSON.parse(answer))
  } catch {
    throw Failure.denied(`${program} answered no JSON`)
  }
  const { Username: username, Secret: secret } = raw
  if (typeof username !== 'string' || typeof secret !== 'string' || secret === '') return undefined
  return username === '<token>' ? { identityToken: secret } : { username, password: secret }
}
