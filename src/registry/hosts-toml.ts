// containerd's own settings of registries: certs.d/HOST/hosts.toml, or that of _default: mirrors, the path that each has, what it is sent,
// certificate authorities, client certificates, and whether certificates are verified.
import { dirname, join, resolve } from 'node:path'
import { parse } from 'smol-toml'
import { Failure } from '../errors.ts'
import { readText } from './file.ts'
import type { Asked, HostRule, Mirror } from './hosts.ts'

/** How one host is to be asked. */
export interface HostFiles {
  /** Files with certificates of authorities, PEM. */
  authorities: readonly string[]
  /** Files of client certificates and their keys. */
  identities: readonly { cert: string; key: string }[]
}

export interface ContainerdHosts {
  rule: HostRule
  /** By `host[:port]`, of the registry and of its mirrors. */
  files: ReadonlyMap<string, HostFiles>
}

type Table = Record<string, unknown>

const FILE = 'hosts.toml'
const DEFAULT = '_default'
const HOSTS_MAX = 64
const HEADERS_MAX = 64

/** What is set for a registry; undefined: nothing is. @param dir certs.d. @throws Failure usage, naming the file; system */
export async function readContainerdHosts(dir: string, host: string): Promise<ContainerdHosts | undefined> {
  if (host.includes('/') || host.startsWith('.')) return undefined
  for (const name of [host.replace(/:(\d+)$/, '_$1_'), host, DEFAULT]) {
    const path = join(dir, name, FILE)
    const text = await readText(path)
    if (text !== undefined) return parseHostsToml(text, path, host)
  }
  return undefined
}

/** @param path of the file, which names in it are relative to. @throws Failure usage */
export function parseHostsToml(text: string, path: string, host: string): ContainerdHosts {
  const fail = (why: string) => Failure.usage(`${path} cannot be used`, { why })
  let table: Table
  try {
    table = parse(text)
  } catch (cause) {
    throw Failure.usage(`${path} is no TOML`, { cause })
  }
  const files = new Map<string, HostFiles>()
  const mirrors: Mirror[] = []
  const named = table.host ?? {}
  if (!isTable(named)) throw fail('host is no table')
  const all = Object.entries(named)
  if (all.length > HOSTS_MAX) throw Failure.limit(`${path} names more than ${HOSTS_MAX} hosts`)
  for (const [url, of] of all) {
    if (!isTable(of)) throw fail(`host ${url} is no table`)
    const at = placeOf(url, fail)
    const serves = servedBy(of.capabilities, fail)
    if (serves === undefined) continue
    const insecure = at.isHttp || of.skip_verify === true
    mirrors.push({ location: at.host, insecure, serves, ...askedAt(of, at, host, fail) })
    files.set(at.host, filesOf(of, dirname(path), fail))
  }
  const { server = '' } = table
  if (typeof server !== 'string') throw fail('server is no text')
  const at = placeOf(server === '' ? host : server, fail)
  if (!files.has(at.host)) files.set(at.host, filesOf(table, dirname(path), fail))
  const insecure = at.isHttp || table.skip_verify === true
  // what no file spells out is as far as any other name that an image gives (off-limits.ts)
  const location = server === '' ? '' : at.host
  const asked = askedAt(table, at, host, fail)
  return { rule: { prefix: host, location, insecure, blocked: false, mirrors, ...asked }, files }
}

interface Place {
  host: string
  isHttp: boolean
  path: string
}

function placeOf(url: string, fail: (why: string) => Failure): Place {
  let parsed: URL
  try {
    parsed = new URL(url.includes('://') ? url : `https://${url}`)
  } catch {
    throw fail(`${JSON.stringify(url)} is no URL`)
  }
  if (parsed.protocol !== 'https:' && parsed.protocol !== 'http:') throw fail(`${url} is neither https nor http`)
  return { host: parsed.host.toLowerCase(), isHttp: parsed.protocol === 'http:', path: parsed.pathname }
}

/** Nothing where a host is asked as usual. @param registry that it answers for */
function askedAt(
  of: Table,
  { path, host }: Place,
  registry: string,
  fail: (why: string) => Failure,
): { asked?: Asked } {
  const clean = path.replace(/\/+$/, '')
  const api = of.override_path === true || clean.endsWith('/v2') ? clean : `${clean}/v2`
  const headers = headersOf(of.header, fail)
  const isOwn = host === registry.toLowerCase() || (registry === 'docker.io' && host === 'registry-1.docker.io')
  if (api === '/v2' && isOwn && Object.keys(headers).length === 0) return {}
  return { asked: { api, headers, ...(isOwn ? {} : { namespace: registry }) } }
}

/** Names and values, or lists of values. @throws Failure usage: without the values */
function headersOf(header: unknown, fail: (why: string) => Failure): Record<string, string> {
  if (header === undefined) return {}
  if (!isTable(header) || Object.keys(header).length > HEADERS_MAX) throw fail('header is no table of some')
  return Object.fromEntries(
    Object.entries(header).map(([name, value]) => {
      const values: unknown[] = Array.isArray(value) ? value : [value]
      const text = values.every((each) => typeof each === 'string') ? values.join(', ') : '\n'
      // RFC 9110 5.1 and 5.5
      if (!/^[!#$%&'*+.^`|~\w-]+$/.test(name) || !/^[\t\x20-\x7e\x80-\xff]*$/.test(text))
        throw fail(`${JSON.stringify(name.slice(0, 100))} is no header`)
      return [name.toLowerCase(), text]
    }),
  )
}

/** Undefined: it is not to be pulled from. */
function servedBy(capabilities: unknown, fail: (why: string) => Failure): Mirror['serves'] | undefined {
  if (capabilities === undefined) return 'all'
  if (!Array.isArray(capabilities) || !capabilities.every((each) => typeof each === 'string'))
    throw fail('capabilities is no list of texts')
  if (!capabilities.includes('pull')) return undefined
  return capabilities.includes('resolve') ? 'all' : 'digest'
}

/** A file each, or a list; a client's is one file for both, or a pair, or several of these. */
function filesOf({ ca, client }: Table, dir: string, fail: (why: string) => Failure): HostFiles {
  const list = (value: unknown): unknown[] => (value === undefined ? [] : Array.isArray(value) ? value : [value])
  const file = (value: unknown): string => {
    if (typeof value !== 'string' || value === '') throw fail('ca or client names no file')
    return resolve(dir, value)
  }
  const identities = list(client).map((each) => {
    const [cert, key = cert] = list(each)
    return { cert: file(cert), key: file(key) }
  })
  return { authorities: list(ca).map(file), identities }
}

function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
