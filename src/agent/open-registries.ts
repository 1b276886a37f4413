// Who is asked for images, by a command's flags. It needs little of the agent, so that a command which knows its image asks before the rest
// is there.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { hostPlatform, type Platform, parsePlatform } from '../image/manifest.ts'
import { type Reference, referenceText } from '../image/reference.ts'
import { BegunSource } from '../registry/begun-source.ts'
import type { ProviderPlaces } from '../registry/credential-providers.ts'
import { systemPlaces } from '../registry/places.ts'
import { Registries } from '../registry/registries.ts'
import type { SealedCredentials } from '../registry/sealed.ts'
import type { ImageSource } from '../registry/source.ts'
import { log } from './log.ts'
import { givenLogin, text, texts, type Values } from './values.ts'

/** Where containerd has its settings of registries, certs.d. */
export function containerdHosts(): string {
  return join(systemPlaces().etc, 'containerd/certs.d')
}

/** @param image the one that the command names; `undefined` where it names none. @throws Failure usage */
export function openRegistries(values: Values, image: Reference | undefined, sealed?: SealedCredentials): Registries {
  const login = givenLogin(values)
  const authfile = text(values, 'authfile')
  const credsFile = text(values, 'creds-file')
  const providers = credentialProviders(values)
  const certDir = text(values, 'cert-dir')
  const verify = text(values, 'tls-verify')
  if (verify !== undefined && verify !== 'true' && verify !== 'false') {
    throw Failure.usage(`--tls-verify is ${JSON.stringify(verify)}, neither true nor false`)
  }
  return new Registries({
    ...(login === undefined || image?.transport !== 'docker' ? {} : { creds: { host: image.host, ...login } }),
    ...(authfile === undefined ? {} : { authfile }),
    ...(credsFile === undefined ? {} : { credsFile }),
    ...(providers === undefined ? {} : { providers }),
    ...(certDir === undefined ? {} : { certDir }),
    ...(verify === undefined ? {} : { tlsVerify: verify === 'true' }),
    ...(sealed === undefined ? {} : { sealed }),
    // as the engine that is served reads them
    ...(texts(values, 'containerd').length === 0 ? {} : { containerdHosts: containerdHosts() }),
    log,
  })
}

/** Both, or neither. @throws Failure usage */
function credentialProviders(values: Values): ProviderPlaces | undefined {
  const config = text(values, 'image-credential-provider-config')
  const binDir = text(values, 'image-credential-provider-bin-dir')
  if (config !== undefined && binDir !== undefined) return { config: resolve(config), binDir: resolve(binDir) }
  if (config === undefined && binDir === undefined) return undefined
  throw Failure.usage('--image-credential-provider-config and --image-credential-provider-bin-dir go together')
}

/** Of which images are wanted. @throws Failure usage */
export function platformOf(values: Values): Platform {
  const platform = text(values, 'platform')
  return platform === undefined ? hostPlatform() : parsePlatform(platform)
}

/** What a cache has of manifests and configs, by digest. */
type Kept = (digest: Digest) => Promise<Uint8Array | undefined>

/** Registries, of which one was asked for an image before there was anything else. */
export interface Asked {
  registries: Registries
  /** Give that image's answer to who resolves it first. */
  sources: { source(reference: Reference): ImageSource }
  /** Says what is kept, which need not be asked for: the answer waits for this. */
  cacheIsOpen(kept: Kept): void
  /** When a connection is on its way, or there will be none; soon in any case. Never rejects. */
  underWay: Promise<unknown>
}

/** Credential helpers may run before anything is connected to. */
const UNDER_WAY_MS = 20
/** Node's channel, on which it tells of each socket that begins to connect. */
const SOCKETS = 'net.client.socket'

/**
 * Begins to ask for an image. What a digest names may be kept, and is not asked for.
 * @param isKnown whether it is kept in any case @throws Failure usage
 */
export function askAhead(values: Values, image: Reference, isKnown: boolean): Asked {
  const platform = platformOf(values)
  const registries = openRegistries(values, image)
  const { promise, resolve: cacheIsOpen } = Promise.withResolvers<Kept>()
  if (isKnown || image.digest !== undefined)
    return { registries, sources: registries, cacheIsOpen, underWay: Promise.resolve() }
  const connecting = firstSocket()
  const begun = new BegunSource(registries.source(image), platform, async (digest) => await (await promise)(digest))
  const name = referenceText(image)
  const source = (reference: Reference) => (referenceText(reference) === name ? begun : registries.source(reference))
  const underWay = Promise.race([connecting, begun.ended, sleep(UNDER_WAY_MS, undefined, { ref: false })])
  return { registries, sources: { source }, cacheIsOpen, underWay }
}

function firstSocket(): Promise<void> {
  return new Promise((resolve) => {
    const begins = () => {
      unsubscribe(SOCKETS, begins)
      resolve()
    }
    subscribe(SOCKETS, begins)
  })
}
