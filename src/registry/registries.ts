// Everything that sources of images share: settings, connections, and who we are to which host.

import { join } from 'node:path'
import type { Digest } from '../image/digest.ts'
import type { Platform } from '../image/manifest.ts'
import { type Reference, type RegistryReference, referenceText } from '../image/reference.ts'
import { LimitEach, onceEach } from '../limit.ts'
import { Absences } from './absences.ts'
import { Authority } from './auth.ts'
import { ignoredRanges, Redirects, SeveralRanges } from './blob-habits.ts'
import { Client, type Counters } from './client.ts'
import type { ProviderPlaces } from './credential-providers.ts'
import {
  fileKeyring,
  type HostLogin,
  helpersKeyring,
  hostKeyring,
  type Keyring,
  namedFileKeyring,
} from './credentials.ts'
import { CredentialsHashes } from './credentials-hash.ts'
import { Hedge } from './hedge.ts'
import {
  type Endpoint,
  endpoints,
  type HostRule,
  isNamed,
  namedHosts,
  readCredentialHelpers,
  readHostRules,
} from './hosts.ts'
import { type HostFiles, readContainerdHosts } from './hosts-toml.ts'
import { LayoutSource } from './layout.ts'
import { LIMITS, type Limits } from './limits.ts'
import type { Credentials } from './login.ts'
import { Outages } from './outages.ts'
import { type Places, systemPlaces } from './places.ts'
import { type Probe, probe } from './probe.ts'
import { proxiesOf } from './proxies.ts'
import type { AnswerDurations } from './pulse.ts'
import { PushRequests } from './push-requests.ts'
import { Referrers } from './referrers.ts'
import { RegistrySource } from './registry-source.ts'
import { firstOf, RememberedCredentials } from './remembered.ts'
import { type Host, Repository } from './repository.ts'
import type { SealedCredentials } from './sealed.ts'
import { type SignatureSource, signatureSource } from './signature-source.ts'
import type { ImageSource } from './source.ts'
import { RegistryTarget } from './target.ts'
import { certificateFolders, readTrust, systemAuthorities, type Trust, withFiles } from './trust.ts'

/** Flags of the command line, and what tests replace. */
export interface RegistriesOptions {
  /** --creds: for its host alone, instead of all files. */
  creds?: HostLogin
  /** --creds-file: asked before all other files. */
  credsFile?: string
  /** --authfile: instead of the usual files. */
  authfile?: string
  /** --tls-verify: false makes every host insecure. Default: what registries.conf says. */
  tlsVerify?: boolean
  /** --cert-dir: instead of the certs.d folders. */
  certDir?: string
  /** kubelet's credential providers, asked where no file has credentials that are accepted. Default: none are run. */
  providers?: ProviderPlaces
  /** containerd's certs.d, for registries that registries.conf says nothing of. Default: it is not read. */
  containerdHosts?: string
  /** Where what is remembered outlives this process. Default: nowhere. */
  sealed?: SealedCredentials
  /** Instead of CONTAINERS_REGISTRIES_CONF and the usual files. */
  registriesConf?: string
  /** Is told of hosts that give nothing, and when they do again; and of programs for credentials that do not work. */
  log?: (message: string) => void
  places?: Partial<Places>
  limits?: Partial<Limits>
}

/** Hosts whose folders were read; redirects may name any number of them. */
const TRUSTS_MAX = 1024

/** What a session with registries shares; made once, closed once. */
export class Registries {
  readonly #options: RegistriesOptions
  readonly #places: Places
  readonly #client: Client
  readonly #remembered: RememberedCredentials
  readonly #keyring: Keyring
  /** By keyOf. */
  readonly #hosts = new Map<string, Host>()
  readonly #signatureTrust = onceEach((host) => this.#readTrust(host, '', false), TRUSTS_MAX)
  /** Of hosts that containerd's settings name; as many as there are there. */
  readonly #hostFiles = new Map<string, HostFiles>()
  readonly #layouts = new Set<LayoutSource>()
  readonly #absences = new Absences()
  readonly #hashes = new CredentialsHashes()

  constructor(options: RegistriesOptions = {}) {
    const { creds, credsFile, authfile, providers, log: told = () => {} } = options
    this.#options = options
    this.#places = { ...systemPlaces(), ...options.places }
    this.#client = new Client({ ...LIMITS, ...options.limits }, proxiesOf(this.#places.env))
    this.#remembered = new RememberedCredentials(options.sealed)
    const helpers = () => readCredentialHelpers(this.#places, options.registriesConf)
    const usual = helpersKeyring(helpers, fileKeyring(this.#places, authfile, told), this.#places)
    const named = credsFile === undefined ? [] : [namedFileKeyring(credsFile, this.#places, told)]
    const run = providers === undefined ? [] : [providersKeyring(providers, this.#places, told)]
    const files = firstOf(...named, usual, ...run)
    this.#keyring = firstOf(this.#remembered, creds ? hostKeyring(creds, files) : files)
  }

  /** Has done what the first connection to any host would wait for. */
  prepare(): void {
    systemAuthorities()
  }

  /** No I/O happens before the source is asked. */
  source(reference: Reference): ImageSource {
    if (reference.transport === 'oci') {
      const layout = new LayoutSource(reference)
      this.#layouts.add(layout)
      return layout
    }
    return this.#registrySource(reference)
  }

  /**
   * Whether nobody but whom a certificate names can answer for a reference, by the flags and by what registries.conf says now: neither the
   * registry nor a mirror of it may be asked without verification.
   * @throws Failure usage, denied (blocked), system: registries.conf
   */
  async verifies(reference: RegistryReference): Promise<boolean> {
    const rules = await this.#rules(reference)
    return endpoints(rules, reference, this.#options.tlsVerify === false).every(({ insecure }) => !insecure)
  }

  /** Where an image's signatures may lie: its own repository, and files of the web. No I/O happens before it is asked. */
  signatures(reference: RegistryReference): SignatureSource {
    return signatureSource(this.#registrySource(reference), this.#client, this.#signatureTrust)
  }

  /** A manifest of the same repository under another tag, as RegistrySource.tagged has it. */
  tagged(
    reference: RegistryReference,
    ...wanted: Parameters<RegistrySource['tagged']>
  ): ReturnType<RegistrySource['tagged']> {
    return this.#registrySource(reference).tagged(...wanted)
  }

  /** What refers to images of its repository. No I/O happens before it is asked. */
  referrers(reference: RegistryReference): Referrers {
    return new Referrers(this.#registrySource(reference), this.#absences)
  }

  /**
   * Where images are pushed to; no I/O happens before something is.
   * @param from a repository of the same registry that may have blobs of them
   */
  target(reference: RegistryReference, from?: string): RegistryTarget {
    const name = referenceText({ transport: 'docker', host: reference.host, repository: reference.repository })
    return new RegistryTarget(name, () => this.#pushRequests(reference, from), from)
  }

  async #pushRequests(reference: RegistryReference, from: string | undefined): Promise<PushRequests> {
    const rules = await readHostRules(this.#places, this.#options.registriesConf)
    for (const host of namedHosts(rules)) this.#client.named(host)
    const endpoint = endpoints(rules, reference, this.#options.tlsVerify === false).at(-1) as Endpoint // the origin is always there
    const { host, insecure } = endpoint
    const known = this.#host(endpoint)
    const scopes = (repository: string) => [
      `repository:${repository}:pull,push`,
      ...(from === undefined ? [] : [`repository:${from}:pull`]),
    ]
    const asking = { client: this.#client, host, insecure, trust: known.trust }
    // that they do not suffice to push says nothing of what they are kept for
    const authority = new Authority({ ...asking, keyring: this.#keyring, scopes, forget: () => {} })
    return new PushRequests(endpoint, { ...known, authority }, this.#client)
  }

  #registrySource(reference: RegistryReference): RegistrySource {
    return new RegistrySource(reference, () => this.#repositories(reference))
  }

  /**
   * From now on these are tried first for this repository, on this very host, until it refuses them. Resolves when they are sealed on
   * disk, where that was asked for; never rejects.
   */
  remember({ host, repository }: RegistryReference, credentials: Credentials): Promise<void> {
    return this.#remembered.remember(host, repository, credentials)
  }

  /**
   * A hash of the credentials and client certificates that a repository (`registry.example.com/team/app`) is asked for with, by all who may
   * answer for it; '': there are none, or it is a layout.
   * @throws Failure as source
   */
  async credentialsOf(repository: string): Promise<string> {
    const at = repository.indexOf('/')
    if (repository.startsWith('oci:') || at < 0) return ''
    const name = { transport: 'docker', host: repository.slice(0, at), repository: repository.slice(at + 1) } as const
    const asked = (await this.#repositories(name)).map(async ({ endpoint, host, server }) => [
      await this.#keyring.find(endpoint.host, endpoint.repository),
      (await host.trust(server)).identities,
    ])
    return await this.#hashes.of(repository, await Promise.all(asked))
  }

  /**
   * Asks every host that may answer for a reference, all at once, and tells what each is like, mirrors first.
   * @throws Failure usage, denied (blocked), system: registries.conf
   */
  async probe(reference: RegistryReference, platform: Platform, signal: AbortSignal): Promise<Probe[]> {
    const repositories = await this.#repositories(reference)
    const protocol = (origin: string) => this.#client.protocol(origin)
    return await Promise.all(repositories.map((each) => probe(each, reference, platform, protocol, signal)))
  }

  /**
   * Whether an origin (a host, a layout) gives what it is asked for, as far as is known; of what is neither (a tree that any of its
   * copies may bring), whether all hosts do.
   */
  answers(origin: string): boolean {
    if (origin.startsWith('oci:')) return true
    const known = [false, true].flatMap((insecure) => this.#hosts.get(keyOf(origin, insecure)) ?? [])
    const asked = known.length === 0 ? [...this.#hosts.values()] : known
    return asked.every(({ outages }) => outages.now().length === 0)
  }

  /** Hosts, or blobs of them, that give nothing now, and why, a line each. */
  outages(): string[] {
    return [...this.#hosts.values()].flatMap(({ outages }) => outages.now())
  }

  counters(): Counters {
    return { ...this.#client.counters }
  }

  /** How long requests took until their answers began. */
  times(): readonly AnswerDurations[] {
    return this.#client.times.all()
  }

  /** Ends connections and closes layouts; what is under way fails with `aborted`. */
  async close(): Promise<void> {
    for (const { outages } of this.#hosts.values()) outages.close()
    await Promise.all([this.#client.close(), ...[...this.#layouts].map((each) => each.close())])
  }

  async #repositories(reference: RegistryReference): Promise<Repository[]> {
    const rules = await this.#rules(reference)
    for (const host of namedHosts(rules)) this.#client.named(host)
    const found = endpoints(rules, reference, this.#options.tlsVerify === false)
    return found.map((endpoint) => new Repository(endpoint, this.#host(endpoint), this.#client))
  }

  /** What is set now of who answers for a reference. */
  async #rules(reference: RegistryReference): Promise<HostRule[]> {
    const rules = await readHostRules(this.#places, this.#options.registriesConf)
    const { containerdHosts } = this.#options
    if (containerdHosts === undefined || isNamed(rules, reference)) return rules
    const found = await readContainerdHosts(containerdHosts, reference.host)
    if (found === undefined) return rules
    for (const [host, files] of found.files) this.#hostFiles.set(host, files)
    return [...rules, found.rule]
  }

  #host({ host, insecure }: Endpoint): Host {
    const key = keyOf(host, insecure)
    let known = this.#hosts.get(key)
    if (known === undefined) {
      const trust = onceEach((of) => this.#readTrust(of, host, insecure), TRUSTS_MAX)
      const forget = (repository: string, credentials: Credentials) =>
        void this.#remembered.forget(host, repository, credentials) // never rejects
      const scopes = (repository: string) => [`repository:${repository}:pull`]
      const asking = { client: this.#client, host, insecure, trust }
      const authority = new Authority({ ...asking, keyring: this.#keyring, scopes, forget })
      const { counters, limits } = this.#client
      const outages = new Outages({ host, limits, counters, log: this.#options.log ?? (() => {}) })
      const hedge = new Hedge(limits.hedgeMs)
      const streams = new LimitEach<Digest>(1)
      const learned = {
        ignoredRanges: ignoredRanges(),
        severalRanges: new SeveralRanges(),
        redirects: new Redirects(),
      }
      known = { authority, trust, scheme: undefined, schemeUntil: 0, outages, hedge, streams, ...learned }
      this.#hosts.set(key, known)
    }
    return known
  }

  /** How connections to `host` are secured on behalf of the registry `registry`. */
  async #readTrust(host: string, registry: string, insecure: boolean): Promise<Trust> {
    const { certDir } = this.#options
    const server = registry === 'docker.io' ? 'registry-1.docker.io' : registry
    const known = host === server ? registry : host
    const folders = certDir === undefined ? certificateFolders(this.#places, known) : [join(certDir)]
    const own = await readTrust(folders, !insecure)
    const files = this.#hostFiles.get(host)
    const trust = files === undefined ? own : await withFiles(own, files)
    // a client certificate named for the registry is shown to nobody else
    return certDir !== undefined && host !== server ? { ...trust, identities: [] } : trust
  }
}

/** With a parser of YAML, which is loaded only where it is asked for. */
function providersKeyring(of: ProviderPlaces, { env }: Places, told: (message: string) => void): Keyring {
  let opened: Promise<Keyring> | undefined
  const open = async () => new (await import('./credential-providers.ts')).CredentialProviders(of, env, told)
  return {
    async find(host, repository, refused) {
      opened ??= open()
      return await (await opened).find(host, repository, refused)
    },
  }
}

function keyOf(host: string, insecure: boolean): string {
  return `${host} ${insecure}`
}
