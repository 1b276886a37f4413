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
  if (absent.length > 0) return `not installed: ${absent.map(withPackage).join(', ')}`
  if (options.root && process.geteuid?.() !== 0) return 'needs root'
  return undefined
}

/** Debian's packages of programs that are not called as their package is. */
const PACKAGES: Readonly<Record<string, string>> = {
  cat: 'coreutils',
  cp: 'coreutils',
  fusermount3: 'fuse3',
  id: 'coreutils',
  ldd: 'libc-bin',
  'mkfs.erofs': 'erofs-utils',
  'fsck.erofs': 'erofs-utils',
  find: 'findutils',
  flock: 'util-linux',
  getfattr: 'attr',
  nsenter: 'util-linux',
  pivot_root: 'util-linux',
  setfattr: 'attr',
  setpriv: 'util-linux',
  unshare: 'util-linux',
}

function withPackage(name: string): string {
  const of = PACKAGES[name]
  return of === undefined ? name : `${name} (package ${of})`
}

export const REGISTRY_PROGRAMS = ['docker-registry', 'nginx', 'openssl', 'setpriv'] as const
export const PODMAN_PROGRAMS = ['podman', 'runc', 'unshare', 'nsenter'] as const
export const TRIXIE_PROGRAMS = ['debootstrap', 'unshare', 'nsenter', 'pivot_root'] as const

/** The folder that holds `images/` and `samples/`, or the reason why there is none. */
export function samples(): { path: string } | { lacking: string } {
  const path = process.env.LAZYLAYER_SAMPLES
  return path === undefined || path === ''
    ? { lacking: 'images of other tools: LAZYLAYER_SAMPLES names no directory of them' }
    : { path }
}
