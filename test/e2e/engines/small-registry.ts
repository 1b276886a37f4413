// The registry that engines are shown: Debian's where it is installed, else our own small one, which no engine can push to.
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { layoutShelf, type Shelf } from '../../../src/build/registry.ts'
import { isDigest } from '../../../src/image/digest.ts'
import { type Auth, startRegistry } from '../../fake/registry.ts'
import { lacking, REGISTRY_PROGRAMS } from './needs.ts'
import { type DockerRegistry, kindOf, type RegistryOptions, startDockerRegistry } from './registry.ts'

const NO_DOCKER_REGISTRY = lacking(REGISTRY_PROGRAMS, { root: false })

export function startEngineRegistry(options: RegistryOptions): Promise<DockerRegistry> {
  return NO_DOCKER_REGISTRY === undefined ? startDockerRegistry(options) : startSmallRegistry(options)
}

/** As startDockerRegistry; layouts must stay where they were pushed from. */
export async function startSmallRegistry({ dir, credentials }: RegistryOptions): Promise<DockerRegistry> {
  const certDir = join(await mkdtemp(join(dir, 'registry-')), 'certs')
  const layouts = new Map<string, Shelf[]>()
  const search = async <Found>(repository: string, look: (shelf: Shelf) => Promise<Found | undefined>) => {
    for (const shelf of layouts.get(repository) ?? []) {
      const found = await look(shelf)
      if (found !== undefined) return found
    }
    return undefined
  }
  const shelf: Shelf = {
    manifest: (repository, version) => search(repository, (each) => each.manifest(repository, version)),
    blob: (repository, digest) => search(repository, (each) => each.blob(repository, digest)),
  }
  const auth: Auth | undefined = credentials && { scheme: 'basic', ...credentials }
  const registry = await startRegistry({ shelf, ...(auth === undefined ? {} : { auth }) })
  await mkdir(certDir)
  const caFile = join(certDir, 'ca.crt')
  await writeFile(caFile, registry.cert)
  return {
    host: registry.host,
    caFile,
    certDir,
    async pushLayout(layout, tag, name) {
      layouts.set(name, [layoutShelf(layout), ...(layouts.get(name) ?? [])])
      const digest = (await shelf.manifest(name, tag))?.digest
      if (!isDigest(digest)) throw new Error(`${layout} has no image tagged ${tag}`)
      return digest
    },
    async log() {
      return registry.seen
        .filter(({ status }) => status !== 0)
        .map(({ method, path, status, sent, range, protocol, header }) => ({
          method,
          uri: path,
          kind: kindOf(path),
          status,
          bytes: sent,
          range: range ?? '',
          protocol: protocol === 'h2' ? 'HTTP/2.0' : 'HTTP/1.1',
          userAgent: header('user-agent') ?? '',
        }))
    },
    async clear() {
      registry.seen.length = 0
    },
    stop: () => registry.close(),
  }
}
