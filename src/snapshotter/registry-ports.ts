// At which ports registries are. containerd notes without its port which host a manifest was fetched from; where a client sends no
// annotations the port is what kubelet asked for, or what containerd's own settings of registries name.
import { readdir } from 'node:fs/promises'
import type { RegistryReference } from '../image/reference.ts'

/** A node has some hundred images. */
const ASKED_MAX = 4_096
/** As containerd names folders of `hosts.toml`: `registry.example.com:5000`, or `registry.example.com_5000_`. */
const FOLDER = /^(.+?)(?::(\d+)|_(\d+)_)$/

export class RegistryPorts {
  readonly #folder: string
  /** By host without its port, and repository: the host that was asked for. The last one comes last. */
  readonly #asked = new Map<string, string>()

  /** @param folder containerd's certs.d */
  constructor(folder: string) {
    this.#folder = folder
  }

  /** An image is about to be pulled. */
  note({ host, repository }: Pick<RegistryReference, 'host' | 'repository'>): void {
    const key = keyOf(withoutPort(host), repository)
    this.#asked.delete(key)
    this.#asked.set(key, host)
    const [oldest] = this.#asked.keys()
    if (this.#asked.size > ASKED_MAX && oldest !== undefined) this.#asked.delete(oldest)
  }

  /** With the port at which a repository is, as far as that is known. @param host without one */
  async hostOf(host: string, repository: string): Promise<string> {
    const asked = this.#asked.get(keyOf(host, repository))
    if (asked !== undefined) return asked
    const folders = await readdir(this.#folder).catch((): string[] => []) // there need not be one
    if (folders.includes(host)) return host
    const ports = new Set(folders.flatMap((each) => portIn(each, host) ?? []))
    const [port] = ports
    return ports.size === 1 ? `${host}:${port}` : host
  }
}

export function withoutPort(host: string): string {
  return host.replace(/:\d+$/, '')
}

function portIn(folder: string, host: string): string | undefined {
  const [, of, colon, underscores] = FOLDER.exec(folder) ?? []
  return of === host ? (colon ?? underscores) : undefined
}

function keyOf(host: string, repository: string): string {
  return `${host}/${repository}`
}
