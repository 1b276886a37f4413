// Whether this machine can run real engines. A test that cannot run is skipped by name, with what is lacking.
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

const PATH = `${process.env.PATH ?? ''}${delimiter}/usr/sbin${delimiter}/sbin`

/** The absolute path of a program, if it is installed. */
export function findProgram(name: string): string | undefined {
  for (const folder of PATH.split(delimiter)) {
    const path = join(folder, name)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // not in this folder
    }
  }
  return undefined
}

/** As findProgram. @throws Error that says what to install */
export function program(name: string): string {
  const path = findProgram(name)
  if (path === undefined) throw new Error(`${name} is not installed: .ci/run installs what the end-to-end tests use`)
  return path
}

/** What is lacking, as the reason for a skip; undefined where all of it is there. */
export function lacking(programs: readonly string[], options: { root: boolean } = { root: true }): string | undefined {
  const absent = programs.filter((name) => findProgram(name) === undefined)
  if (absent.length > 0) return `not installed: ${absent.join(', ')}`
  if (options.root && process.geteuid?.() !== 0) return 'needs root'
  return undefined
}

export const REGISTRY_PROGRAMS = ['docker-registry', 'nginx', 'openssl', 'setpriv'] as const
export const PODMAN_PROGRAMS = ['podman', 'runc', 'unshare', 'nsenter'] as const
export const TRIXIE_PROGRAMS = ['debootstrap', 'unshare', 'nsenter', 'pivot_root'] as const

/** The folder that holds `images/` and `samples/`, or the reason why there is none. */
export function samples(): { path: string } | { lacking: string } {
  const path = process.env.LAZYLAYER_SAMPLES
  return path === undefined || path === '' ? { lacking: 'LAZYLAYER_SAMPLES is not set' } : { path }
}
