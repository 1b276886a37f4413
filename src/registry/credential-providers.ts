// Credentials from kubelet's providers: the programs of its --image-credential-provider-config, run as kubelet runs them, and again when
// what they gave has lived its time or is refused. No message holds what a program said.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { describe, Failure } from '../errors.ts'
import type { Keyring } from './credentials.ts'
import { readText } from './file.ts'
import type { Credentials } from './login.ts'
import type { Places } from './places.ts'
import { durationMs, matchesImage, type Provider, parseProviderConfig } from './provider-config.ts'

/** Where kubelet's flags of these names point. */
export interface ProviderPlaces {
  config: string
  binDir: string
}

/** kubelet waits a minute. */
const RUN_MS = 60_000
const ANSWER_MAX_BYTES = 1 << 20
/** Answers that are kept; the oldest goes. */
const CACHED_MAX = 1_024
/** A clock that stands: nobody keeps an answer longer. */
const CACHE_MAX_MS = 24 * 3_600_000

/** What a provider says: patterns of images, and their credentials. */
type Answer = readonly (readonly [pattern: string, credentials: Credentials])[]

interface Cached {
  answer: Answer
  /** On the clock of performance.now(). */
  until: number
}

export class CredentialProviders implements Keyring {
  readonly #places: ProviderPlaces
  readonly #env: Places['env']
  readonly #told: (message: string) => void
  /** By provider and what the answer is for. */
  readonly #cached = new Map<string, Cached>()
  readonly #running = new Map<string, Promise<Answer>>()
  readonly #said = new Set<string>()

  /** @param told takes what went wrong with a program, once */
  constructor(places: ProviderPlaces, env: Places['env'], told: (message: string) => void) {
    this.#places = places
    this.#env = env
    this.#told = told
  }

  /** @throws Failure usage: the configuration, which is read anew at every call */
  async find(host: string, repository: string, refused?: Credentials): Promise<Credentials | undefined> {
    const image = `${host}/${repository}`
    for (const provider of await this.#providers()) {
      if (!provider.matchImages.some((each) => matchesImage(each, image))) continue
      try {
        const found = await this.#ask(provider, image, host, refused)
        if (found !== undefined) return found
      } catch (error) {
        this.#tell(`credentials for ${host}: ${describe(error)}`) // another provider, or file, may have some
      }
    }
    return undefined
  }

  async #providers(): Promise<readonly Provider[]> {
    const { config } = this.#places
    const text = await readText(config)
    if (text === undefined)
      throw Failure.usage(`${config} does not exist`, { why: 'it was named as configuration of credential providers' })
    const { providers, left } = parseProviderConfig(text, config)
    for (const each of left) this.#tell(each)
    return providers
  }

  async #ask(
    provider: Provider,
    image: string,
    host: string,
    refused: Credentials | undefined,
  ): Promise<Credentials | undefined> {
    for (const key of keysOf(provider, image, host)) {
      const cached = this.#cached.get(key)
      if (cached === undefined) continue
      const found = credentialsFor(image, cached.answer)
      if (performance.now() < cached.until && !isDeepStrictEqual(found, refused)) return found
      this.#cached.delete(key) // another run may bring what is accepted
    }
    return credentialsFor(image, await this.#run(provider, image, host))
  }

  /** Whoever wants the same meanwhile waits for the same run. */
  #run(provider: Provider, image: string, host: string): Promise<Answer> {
    const key = `${provider.name} ${image}`
    const known = this.#running.get(key)
    if (known !== undefined) return known
    const running = this.#answer(provider, image, host).finally(() => this.#running.delete(key))
    this.#running.set(key, running)
    return running
  }

  async #answer(provider: Provider, image: string, host: string): Promise<Answer> {
    const { name, apiVersion, args, env } = provider
    const request = JSON.stringify({ kind: 'CredentialProviderRequest', apiVersion, image })
    const said = await run(join(this.#places.binDir, name), args, { ...this.#env, ...env }, request)
    const { answer, keyType, cacheMs = provider.cacheMs } = parseResponse(said, provider)
    const [byImage, byRegistry, global] = keysOf(provider, image, host)
    const key = { Image: byImage, Registry: byRegistry, Global: global }[keyType]
    if (cacheMs > 0) this.#keep(key, { answer, until: performance.now() + Math.min(cacheMs, CACHE_MAX_MS) })
    return answer
  }

  #keep(key: string, cached: Cached): void {
    const [oldest] = this.#cached.keys()
    if (this.#cached.size >= CACHED_MAX && oldest !== undefined) this.#cached.delete(oldest)
    this.#cached.set(key, cached)
  }

  #tell(message: string): void {
    if (this.#said.has(message) || this.#said.size >= CACHED_MAX) return
    this.#said.add(message)
    this.#told(message)
  }
}

/** What an answer may be kept for, the most particular first. */
function keysOf({ name }: Provider, image: string, host: string): [image: string, registry: string, global: string] {
  return [`${name} image ${image}`, `${name} registry ${host}`, `${name} global`]
}

/** The longest pattern is the most particular one. */
function credentialsFor(image: string, answer: Answer): Credentials | undefined {
  const matching = answer.filter(([pattern]) => matchesImage(pattern, image))
  return matching.sort(([one], [other]) => other.length - one.length)[0]?.[1]
}

const KEY_TYPES = ['Image', 'Registry', 'Global'] as const

interface Response {
  answer: Answer
  keyType: (typeof KEY_TYPES)[number]
  /** Undefined: the program does not say. */
  cacheMs: number | undefined
}

/** @throws Failure denied, without what the program said */
function parseResponse(text: string, { name, apiVersion }: Provider): Response {
  const fail = (why: string) => Failure.denied(`${name} gave no credentials`, { why })
  let said: Record<string, unknown>
  try {
    said = Object(JSON.parse(text))
  } catch {
    throw fail('its answer is no JSON')
  }
  if (said.kind !== 'CredentialProviderResponse' || said.apiVersion !== apiVersion)
    throw fail('its answer is of another kind or version')
  const keyType = KEY_TYPES.find((each) => each === said.cacheKeyType)
  if (keyType === undefined) throw fail('it does not say what its answer is for')
  const { cacheDuration } = said
  const cacheMs = durationMs(cacheDuration)
  if (cacheMs === undefined && cacheDuration !== undefined && cacheDuration !== null)
    throw fail('it does not say how long its answer counts')
  const answer = Object.entries(Object(said.auth)).flatMap(([pattern, of]): Answer => {
    const { username, password } = Object(of)
    if (typeof username !== 'string' || typeof password !== 'string') return []
    return username === '' && password === '' ? [] : [[pattern, { username, password }]]
  })
  return { answer, keyType, cacheMs }
}

/** @throws Failure usage (no such program), denied, timeout */
function run(program: string, args: readonly string[], env: Places['env'], input: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { timeout: RUN_MS, killSignal: 'SIGKILL', maxBuffer: ANSWER_MAX_BYTES, env } as const
    const child = execFile(program, args, options, (error, stdout) => {
      if (error === null) resolve(stdout)
      else if (error.killed === true) reject(Failure.timeout(`${program} did not answer within ${RUN_MS} ms`))
      else if (error.code === 'ENOENT') reject(Failure.usage(`${program} is not installed`))
      else reject(Failure.denied(`${program} failed with ${error.code ?? error.signal}`))
    })
    // a program that does not read its input ends the pipe: its exit tells
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
  })
}
