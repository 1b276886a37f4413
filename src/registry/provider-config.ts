// kubelet's CredentialProviderConfig (kubelet.config.k8s.io/v1): programs that give credentials for images, and which images each is for. Pure.
import { parse } from 'yaml'
import { Failure } from '../errors.ts'

export interface Provider {
  /** Of its program. */
  name: string
  /** `host[:port][/path]`, each label of the host with `*` for any; as kubelet's, never for several labels. */
  matchImages: readonly string[]
  args: readonly string[]
  env: Readonly<Record<string, string>>
  /** How long an answer counts that does not say so. */
  cacheMs: number
  /** Of the request and the response. */
  apiVersion: string
}

type Table = Record<string, unknown>

const KIND = 'CredentialProviderConfig'
const CONFIG_VERSIONS: ReadonlySet<unknown> = new Set(
  ['v1', 'v1beta1', 'v1alpha1'].map((each) => `kubelet.config.k8s.io/${each}`),
)
const API_VERSIONS: ReadonlySet<unknown> = new Set(
  ['v1', 'v1beta1', 'v1alpha1'].map((each) => `credentialprovider.kubelet.k8s.io/${each}`),
)
const PROVIDERS_MAX = 64
const PATTERNS_MAX = 256
/** As Go's time.ParseDuration: `1h30m`, `1.5s`. */
const DURATION = /^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+$/
const UNIT_MS: Readonly<Record<string, number>> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1e3, m: 60e3, h: 3600e3 }

/**
 * @param text JSON, or YAML
 * @returns `left`: providers that cannot be run here, and why: a sentence each
 * @throws Failure usage: naming `path` and what is wrong, without quoting the file
 */
export function parseProviderConfig(text: string, path: string): { providers: Provider[]; left: string[] } {
  const fail = (why: string) => Failure.usage(`${path} cannot be used`, { why })
  let config: unknown
  try {
    config = parse(text, { logLevel: 'error' }) // its warnings quote the file
  } catch {
    throw fail('it is no YAML')
  }
  if (!isTable(config) || config.kind !== KIND) throw fail(`it is no ${KIND}`)
  if (!CONFIG_VERSIONS.has(config.apiVersion))
    throw fail(`its version ${JSON.stringify(config.apiVersion)} is not known`)
  const all = config.providers
  if (!Array.isArray(all) || !all.every(isTable) || all.length > PROVIDERS_MAX)
    throw fail('providers is no list of some')
  const isServiceAccount = ({ tokenAttributes }: Table) => tokenAttributes !== undefined && tokenAttributes !== null
  const left = all.filter(isServiceAccount).map(({ name }) => {
    return `${path}: ${JSON.stringify(name)} is not asked: it wants a token of a pod's service account`
  })
  return { providers: all.filter((each) => !isServiceAccount(each)).map((each) => providerOf(each, fail)), left }
}

function providerOf(of: Table, fail: (why: string) => Failure): Provider {
  const { name, apiVersion } = of
  if (typeof name !== 'string' || !/^[\w.-]+$/.test(name) || name.startsWith('.'))
    throw fail(`${JSON.stringify(name)} is no name of a program`)
  const what = `provider ${name}`
  if (typeof apiVersion !== 'string' || !API_VERSIONS.has(apiVersion))
    throw fail(`${what} speaks a version that is not known`)
  const matchImages = texts(of.matchImages, PATTERNS_MAX)
  if (matchImages === undefined || matchImages.length === 0) throw fail(`${what} has no matchImages`)
  const cacheMs = durationMs(of.defaultCacheDuration)
  if (cacheMs === undefined) throw fail(`${what} has no defaultCacheDuration`)
  const args = texts(of.args ?? [], PATTERNS_MAX)
  if (args === undefined) throw fail(`${what}: args is no list of texts`)
  const env = of.env ?? []
  if (!Array.isArray(env) || !env.every(isVariable)) throw fail(`${what}: env is no list of names and values`)
  const variables = Object.fromEntries(env.map((each) => [each.name, each.value]))
  return { name, matchImages, args, env: variables, cacheMs, apiVersion }
}

/** Undefined: it is none. */
export function durationMs(value: unknown): number | undefined {
  if (value === '0') return 0
  if (typeof value !== 'string' || !DURATION.test(value)) return undefined
  const parts = [...value.matchAll(/(\d+(?:\.\d+)?)([a-zµ]+)/g)]
  return parts.reduce((sum, [, number, unit = '']) => sum + Number(number) * (UNIT_MS[unit] ?? 0), 0)
}

/** As kubelet matches: as many labels, each a match, the same port, and a beginning of the path. @param image `host[:port]/repository` */
export function matchesImage(pattern: string, image: string): boolean {
  const one = partsOf(pattern)
  const other = partsOf(image)
  if (one.port !== other.port || one.labels.length !== other.labels.length) return false
  if (!other.path.startsWith(one.path)) return false
  return one.labels.every((label, i) => matchesLabel(label, other.labels[i] ?? ''))
}

function partsOf(text: string): { labels: string[]; port: string; path: string } {
  const bare = text.replace(/^[a-z]+:\/\//, '')
  const slash = bare.indexOf('/')
  const [host = '', port = ''] = (slash < 0 ? bare : bare.slice(0, slash)).toLowerCase().split(':')
  return { labels: host.split('.'), port, path: slash < 0 ? '' : bare.slice(slash) }
}

/** With `*` for any text, without backtracking: what lies between stars is looked for from left to right. */
function matchesLabel(pattern: string, label: string): boolean {
  const [first = '', ...rest] = pattern.split('*')
  const last = rest.pop()
  if (last === undefined) return label === first
  if (!label.startsWith(first) || label.length < first.length + last.length || !label.endsWith(last)) return false
  let at = first.length
  for (const part of rest) {
    const found = label.indexOf(part, at)
    if (found < 0) return false
    at = found + part.length
  }
  return at <= label.length - last.length
}

function texts(value: unknown, max: number): string[] | undefined {
  return Array.isArray(value) && value.length <= max && value.every((each) => typeof each === 'string')
    ? value
    : undefined
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isVariable(value: unknown): value is { name: string; value: string } {
  return isTable(value) && typeof value.name === 'string' && typeof value.value === 'string'
}
