// registries.d: where the signatures of which images lie (containers-registries.d(5)).
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'yaml'
import { Failure } from '../errors.ts'
import { scopes } from './scope.ts'
import { isAbsent, readBytes } from './settings-file.ts'
import type { Named } from './signed-identity.ts'

/** One namespace, or what holds for all others. */
export interface Namespace {
  /** A URL. */
  lookaside: string | undefined
  attachments: boolean | undefined
}

/** What all files say together. */
export interface RegistriesD {
  byDefault: Namespace | undefined
  /** By `host[/path…]`, `*.domain`, or a whole reference. */
  docker: ReadonlyMap<string, Namespace>
}

/** Where an image's signatures may lie. */
export interface Home {
  /** Undefined: nothing is configured. */
  lookaside: string | undefined
  attachments: boolean
}

const FILES_MAX = 256
/** A file that grows by its own repetitions is no configuration. */
const ALIASES_MAX = 100

/** All `*.yaml` of a folder, which need not be there. @throws Failure usage, system, limit */
export async function readRegistriesD(folder: string): Promise<RegistriesD> {
  const names = await readdir(folder).catch((cause) => {
    if (isAbsent(cause)) return []
    throw Failure.system(`cannot list ${folder}`, { cause })
  })
  const files = names.filter((name) => name.endsWith('.yaml')).sort()
  if (files.length > FILES_MAX) throw Failure.limit(`${folder} holds more than ${FILES_MAX} files`)
  let byDefault: Namespace | undefined
  const docker = new Map<string, Namespace>()
  for (const name of files) {
    const path = join(folder, name)
    // one that was removed since is none
    const bytes = await readBytes(path)
    const found = bytes === undefined ? undefined : parseRegistriesD(bytes, path)
    if (found?.byDefault !== undefined) {
      if (byDefault !== undefined) throw twice(path, 'default-docker')
      byDefault = found.byDefault
    }
    for (const [namespace, settings] of found?.docker ?? []) {
      if (docker.has(namespace)) throw twice(path, `docker: ${namespace}`)
      docker.set(namespace, settings)
    }
  }
  return { byDefault, docker }
}

function twice(path: string, what: string): Failure {
  return Failure.usage(`${path}: ${what} is defined in another file, too`, { fix: 'Define it once.' })
}

/** One file. @throws Failure usage */
export function parseRegistriesD(bytes: Uint8Array, path: string): RegistriesD {
  let root: unknown
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    root = parse(text, { mapAsMap: true, maxAliasCount: ALIASES_MAX, logLevel: 'error' })
  } catch (cause) {
    throw Failure.usage(`${path} is no YAML`, { cause })
  }
  const fields = map(root, path)
  const byDefault = fields.get('default-docker') ?? undefined
  const docker = new Map<string, Namespace>()
  for (const [name, settings] of map(fields.get('docker'), `${path}: docker`)) {
    if (typeof name !== 'string') throw Failure.usage(`${path}: docker: a namespace is no text`)
    docker.set(name, namespace(settings, `${path}: ${name}`))
  }
  return {
    byDefault: byDefault === undefined ? undefined : namespace(byDefault, `${path}: default-docker`),
    docker,
  }
}

/** Other keys (for writing, or of later versions) are left alone, as engines do. */
function namespace(value: unknown, what: string): Namespace {
  const fields = map(value, what)
  const text = (key: string): string | undefined => {
    const found = fields.get(key) ?? undefined
    if (found !== undefined && typeof found !== 'string') throw Failure.usage(`${what}: ${key} is no text`)
    return found === '' ? undefined : found
  }
  const attachments = fields.get('use-sigstore-attachments') ?? undefined
  if (attachments !== undefined && typeof attachments !== 'boolean') {
    throw Failure.usage(`${what}: use-sigstore-attachments is neither true nor false`)
  }
  return { lookaside: text('lookaside') ?? text('sigstore'), attachments }
}

function map(value: unknown, what: string): ReadonlyMap<unknown, unknown> {
  if (value === undefined || value === null) return new Map()
  if (value instanceof Map) return value
  throw Failure.usage(`${what} is no mapping`)
}

/** Each of the two is what the most telling namespace says that says anything about it. */
export function homeOf({ byDefault, docker }: RegistriesD, image: Named): Home {
  const said = [...scopes(image).map((scope) => docker.get(scope)), byDefault].filter((each) => each !== undefined)
  return {
    lookaside: said.find((each) => each.lookaside !== undefined)?.lookaside,
    attachments: said.find((each) => each.attachments !== undefined)?.attachments ?? false,
  }
}
