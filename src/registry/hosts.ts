// registries.conf (version 2): which host and repository really answer for a reference.
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'smol-toml'
import { Failure } from '../errors.ts'
import { aliasesOf, type RegistryReference, referenceText, withoutAlias } from '../image/reference.ts'
import { isAbsent, readText } from './file.ts'
import { configHome, type Places } from './places.ts'

/** One `[[registry]]` table. */
export interface HostRule {
  /** `host[:port][/path…]`, or `*.example.com`. */
  prefix: string
  /** What the prefix is replaced by; '' leaves it. */
  location: string
  insecure: boolean
  blocked: boolean
  mirrors: readonly Mirror[]
  /** Of what the prefix is replaced by. */
  asked?: Asked
}

/** How a host is asked, where that is not usual: as containerd's hosts.toml has it. */
export interface Asked {
  /** What the path of all that is asked begins with; usually `/v2`. */
  api: string
  /** The registry that a mirror of several is to answer for (`?ns=`). */
  namespace?: string
  /** Sent to this host alone; they may hold secrets. */
  headers: Readonly<Record<string, string>>
}

/** One `[[registry.mirror]]` table. */
export interface Mirror {
  location: string
  insecure: boolean
  /** Which references it serves. */
  serves: 'all' | 'digest' | 'tag'
  asked?: Asked
}

/** A host that may answer for a reference, and under which repository. */
export interface Endpoint {
  /** `host[:port]`; docker.io stands for itself here. */
  host: string
  repository: string
  /** HTTPS without verification, then HTTP, are allowed. */
  insecure: boolean
  asked?: Asked
}

/** Nobody has that many; each is compared with every reference. */
const RULES_MAX = 4096
const DROP_INS_MAX = 256
/** Each is a program that is run for a registry that asks. */
const HELPERS_MAX = 16

type Table = Record<string, unknown>

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function tables(value: unknown, what: string): Table[] {
  if (value === undefined) return []
  if (Array.isArray(value) && value.length <= RULES_MAX && value.every(isTable)) return value
  throw Failure.usage(`${what} is no list of tables`)
}

function text(of: Table, key: string, what: string): string {
  const value = of[key] ?? ''
  if (typeof value !== 'string') throw Failure.usage(`${what}: ${key} is no text`)
  return value.replace(/\/+$/, '')
}

function flag(of: Table, key: string, what: string): boolean {
  const value = of[key] ?? false
  if (typeof value !== 'boolean') throw Failure.usage(`${what}: ${key} is neither true nor false`)
  return value
}

function mirror(of: Table, digestOnly: boolean, what: string): Mirror {
  const location = text(of, 'location', what)
  if (location === '') throw Failure.usage(`${what}: a mirror has no location`)
  const from = text(of, 'pull-from-mirror', what)
  const serves = digestOnly || from === 'digest-only' ? 'digest' : from === 'tag-only' ? 'tag' : 'all'
  return { location, insecure: flag(of, 'insecure', what), serves }
}

function tableOf(toml: string, path: string): Table {
  try {
    return parse(toml)
  } catch (cause) {
    throw Failure.usage(`${path} is no TOML`, { cause })
  }
}

/** @throws Failure usage: naming `path` and what is wrong in it */
export function parseRegistriesConf(toml: string, path: string): HostRule[] {
  return tables(tableOf(toml, path).registry, `${path}: registry`).map((each, i) => {
    const what = `${path}: registry ${i + 1}`
    const location = text(each, 'location', what)
    const prefix = text(each, 'prefix', what) || location
    if (prefix === '') throw Failure.usage(`${what} has neither prefix nor location`)
    if (location === '' && !prefix.startsWith('*.')) throw Failure.usage(`${what}: prefix ${prefix} has no location`)
    const digestOnly = flag(each, 'mirror-by-digest-only', what)
    return {
      prefix,
      location,
      insecure: flag(each, 'insecure', what),
      blocked: flag(each, 'blocked', what),
      mirrors: tables(each.mirror, `${what}: mirror`).map((one) => mirror(one, digestOnly, what)),
    }
  })
}

/**
 * The rules in force, read anew; of equal prefixes the last counts.
 * @throws Failure usage, system
 */
export async function readHostRules(places: Places, path?: string): Promise<HostRule[]> {
  const rules = new Map<string, HostRule>()
  for (const { toml, file } of await readConfs(places, path)) {
    for (const rule of parseRegistriesConf(toml, file)) rules.set(rule.prefix, rule)
  }
  return [...rules.values()]
}

/**
 * `credential-helpers`, read anew: the last file that has it counts.
 * @throws Failure usage, system
 */
export async function readCredentialHelpers(places: Places, path?: string): Promise<readonly string[]> {
  let found: readonly string[] = []
  for (const { toml, file } of await readConfs(places, path)) {
    const value = tableOf(toml, file)['credential-helpers']
    if (value === undefined) continue
    if (!Array.isArray(value) || value.length > HELPERS_MAX || !value.every((each) => typeof each === 'string')) {
      throw Failure.usage(`${file}: credential-helpers is no list of names`)
    }
    found = value
  }
  return found
}

/**
 * Of those that exist, in this order: `path` (or CONTAINERS_REGISTRIES_CONF, the user's file, the system's), then the drop-ins of both
 * registries.conf.d folders.
 */
async function readConfs(places: Places, path?: string): Promise<{ toml: string; file: string }[]> {
  const system = join(places.etc, 'containers')
  const user = join(configHome(places), 'containers')
  const named = path ?? (places.env.CONTAINERS_REGISTRIES_CONF || undefined)
  const found: { toml: string; file: string }[] = []
  const add = async (file: string): Promise<boolean> => {
    const toml = await readText(file)
    if (toml === undefined) return false
    found.push({ toml, file })
    return true
  }
  if (named !== undefined) {
    if (!(await add(named))) throw Failure.usage(`${named} does not exist`, { why: 'it was named as registries.conf' })
  } else if (!(await add(join(user, 'registries.conf')))) {
    await add(join(system, 'registries.conf'))
  }
  for (const folder of [system, user]) {
    for (const file of await dropIns(join(folder, 'registries.conf.d'))) await add(file)
  }
  return found
}

async function dropIns(folder: string): Promise<string[]> {
  try {
    const names = (await readdir(folder)).filter((name) => name.endsWith('.conf')).sort()
    if (names.length > DROP_INS_MAX) throw Failure.limit(`${folder} holds more than ${DROP_INS_MAX} files`)
    return names.map((name) => join(folder, name))
  } catch (cause) {
    if (isAbsent(cause)) return []
    throw cause instanceof Failure ? cause : Failure.system(`cannot list ${folder}`, { cause })
  }
}

/** `host[:port]` of all locations that rules spell out; a prefix alone, or a wildcard, leaves the host to whoever names an image. */
export function namedHosts(rules: readonly HostRule[]): string[] {
  const locations = rules.flatMap(({ location, mirrors }) => [location, ...mirrors.map((each) => each.location)])
  return locations.filter(Boolean).map((each) => (each.split('/')[0] as string).toLowerCase()) // a split text has a first part
}

/** How much of `name` (host/repository:tag) the prefix covers; 0 when it does not match. */
function covered(prefix: string, name: string): number {
  if (prefix.startsWith('*.')) {
    const end = name.search(/[/:@]/)
    const host = end < 0 ? name : name.slice(0, end)
    return host.endsWith(prefix.slice(1)) && host.length >= prefix.length ? host.length : 0
  }
  if (!name.startsWith(prefix)) return 0
  return name.length === prefix.length || '/:@'.includes(name.charAt(prefix.length)) ? prefix.length : 0
}

/** Whether a rule says anything of a reference. */
export function isNamed(rules: readonly HostRule[], reference: RegistryReference): boolean {
  const names = aliasesOf(referenceText(reference))
  return rules.some((rule) => names.some((name) => covered(rule.prefix, name) > 0))
}

/** The longer prefix is the more particular one; of equal lengths a wildcard is less so. */
function rank(rule: HostRule): number {
  return rule.prefix.length - (rule.prefix.startsWith('*.') ? 0.5 : 0)
}

/**
 * Who is asked for a reference, in order; `insecure` makes every host so.
 * @throws Failure denied (blocked), usage (a location that is no repository)
 */
export function endpoints(rules: readonly HostRule[], reference: RegistryReference, insecure = false): Endpoint[] {
  const name = referenceText(reference)
  const repositoryName = `${reference.host}/${reference.repository}`
  let best: { rule: HostRule; length: number } | undefined
  for (const rule of rules) {
    const length = covered(rule.prefix, name)
    if (length > 0 && (best === undefined || rank(rule) > rank(best.rule))) best = { rule, length }
  }
  const blocked = rules.find(
    (rule) =>
      rule.blocked &&
      aliasesOf(name)
        .slice(1)
        .some((each) => covered(rule.prefix, each) > 0),
  )
  if (blocked !== undefined)
    throw Failure.denied(`${name}: registries.conf blocks ${blocked.prefix}, another name of it`)
  if (best === undefined) return [{ host: reference.host, repository: reference.repository, insecure }]
  const { rule } = best
  if (rule.blocked) throw Failure.denied(`${name}: registries.conf blocks ${rule.prefix}`)
  const length = Math.min(best.length, repositoryName.length)
  const at = (location: string, own: boolean, asked: Asked | undefined): Endpoint => {
    const full = location === '' ? repositoryName : location + repositoryName.slice(length)
    const slash = full.indexOf('/')
    if (slash <= 0 || slash === full.length - 1) {
      throw Failure.usage(`registries.conf: location ${location} leaves no repository for ${name}`)
    }
    return {
      host: withoutAlias(full.slice(0, slash).toLowerCase()),
      repository: full.slice(slash + 1),
      insecure: own || insecure,
      ...(asked === undefined ? {} : { asked }),
    }
  }
  const version = reference.digest === undefined ? 'tag' : 'digest'
  return [
    ...rule.mirrors
      .filter((each) => each.serves === 'all' || each.serves === version)
      .map((each) => at(each.location, each.insecure, each.asked)),
    at(rule.location, rule.insecure, rule.asked),
  ]
}
