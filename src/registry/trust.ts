// Whom a TLS connection believes: the system's authorities, more of them and client certificates from certs.d folders.
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { getCACertificates } from 'node:tls'
import { Failure } from '../errors.ts'
import { isAbsent, readText } from './file.ts'
import { configHome, type Places } from './places.ts'

/** What makes a TLS connection acceptable. */
export interface Trust {
  /** False accepts any certificate. */
  verify: boolean
  /** PEM, beside the system's. */
  authorities: readonly string[]
  /** Client certificates, PEM. */
  identities: readonly { cert: string; key: string }[]
}

const FILES_MAX = 64

/** The folders that may hold a host's certificates, as engines look for them. */
export function certificateFolders(places: Places, host: string): string[] {
  const folders = [join(configHome(places), 'containers', 'certs.d'), join(places.etc, 'containers', 'certs.d')]
  return [...folders, join(places.etc, 'docker', 'certs.d')].map((folder) => join(folder, host))
}

/**
 * `*.crt` are authorities, `NAME.cert` with `NAME.key` a client certificate. `folders` that do not exist are skipped.
 * @throws Failure usage (half a pair), system
 */
export async function readTrust(folders: readonly string[], verify: boolean): Promise<Trust> {
  const authorities: string[] = []
  const identities: { cert: string; key: string }[] = []
  for (const folder of folders) {
    const names = await list(folder)
    for (const name of names) {
      const path = join(folder, name)
      if (name.endsWith('.crt')) authorities.push((await readText(path)) ?? '')
      if (!name.endsWith('.cert')) continue
      const key = `${name.slice(0, -'.cert'.length)}.key`
      if (!names.includes(key)) throw Failure.usage(`${path}: ${key} is missing beside it`)
      identities.push({ cert: (await readText(path)) ?? '', key: (await readText(join(folder, key))) ?? '' })
    }
  }
  return { verify, authorities, identities }
}

/** The same with files that are named one by one. @throws Failure usage: one is not there; system */
export async function withFiles(
  { verify, authorities, identities }: Trust,
  named: { authorities: readonly string[]; identities: readonly { cert: string; key: string }[] },
): Promise<Trust> {
  const read = async (path: string) => {
    const text = await readText(path)
    if (text === undefined) throw Failure.usage(`${path} does not exist`, { why: 'it was named in hosts.toml' })
    return text
  }
  const pairs = named.identities.map(async ({ cert, key }) => ({ cert: await read(cert), key: await read(key) }))
  return {
    verify,
    authorities: [...authorities, ...(await Promise.all(named.authorities.map(read)))],
    identities: [...identities, ...(await Promise.all(pairs))],
  }
}

async function list(folder: string): Promise<string[]> {
  try {
    const names = (await readdir(folder)).sort()
    if (names.length > FILES_MAX) throw Failure.limit(`${folder} holds more than ${FILES_MAX} files`)
    return names
  } catch (cause) {
    if (isAbsent(cause)) return []
    throw cause instanceof Failure ? cause : Failure.system(`cannot list ${folder}`, { cause })
  }
}

/** The authorities that the system trusts; those that Node brings where the system has none. Some 30 ms at the first call. */
export function systemAuthorities(): string[] {
  // a bundle and a folder of the same certificates are usual
  const found = new Set(getCACertificates('system'))
  return found.size > 0 ? [...found] : getCACertificates('default')
}
