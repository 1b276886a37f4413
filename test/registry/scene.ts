// Registries that misbehave, and a program that reads a blob of them, for the length of one test.
import { onTestFinished } from 'vitest'
import { parseReference } from '../../src/image/reference.ts'
import type { Limits } from '../../src/registry/limits.ts'
import type { RegistriesOptions } from '../../src/registry/registries.ts'
import type { Fault } from '../fake/faults.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type FakeOptions, type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'
import { FilledBlob } from './filled.ts'

export const CHUNK = 64 << 10
/** The blob. */
export const BYTES = pattern(32 * CHUNK)

export const PROTOCOLS = {
  'HTTP/1.1': { tls: false },
  'HTTP/1.1 over TLS': { http2: false },
  'HTTP/2': {},
} satisfies Record<string, Partial<FakeOptions>>
export type Protocol = keyof typeof PROTOCOLS

/** A fault of what blobs are asked for. */
export const blobs = (fault: Partial<Fault>): Fault => ({ match: /blobs/, ...fault })

export async function makeScene() {
  const settings = await Settings.make()
  const shelf = new MemoryShelf()
  const layer = shelf.addBlob(BYTES)
  const registries: FakeRegistry[] = []
  const programs: FilledBlob[] = []
  onTestFinished(async () => {
    await Promise.all(programs.map((each) => each[Symbol.asyncDispose]()))
    await settings[Symbol.asyncDispose]()
    await Promise.all(registries.map((each) => each.close()))
  })
  return {
    settings,
    shelf,
    layer,

    async start(options: Partial<FakeOptions> = {}): Promise<FakeRegistry> {
      const registry = await startRegistry({ shelf, ...options })
      registries.push(registry)
      await settings.trust(registry.host, registry.cert)
      return registry
    },

    /** Has these answer for the image that is returned, the last of them as its registry. */
    async answering(...hosts: readonly { host: string }[]): Promise<string> {
      const locations = hosts.map(({ host }) => `location = "${host}/a/b"\ninsecure = true\n`)
      const mirrors = locations.slice(0, -1).map((each) => `[[registry.mirror]]\n${each}`)
      const text = `[[registry]]\nprefix = "registry.example.com/a/b"\n${locations.at(-1)}${mirrors.join('')}`
      await settings.write('etc/containers/registries.conf', text)
      return 'registry.example.com/a/b:v1'
    },

    open(name: string, limits: Partial<Limits> = {}, options: RegistriesOptions = {}) {
      const registries = settings.registries({ ...options, limits })
      const blob = registries.source(parseReference(name)).blob(layer)
      const program = new FilledBlob(blob, BYTES, CHUNK)
      programs.push(program)
      return { registries, blob, program }
    },
  }
}
