// Checks of what lazylayer runs on: Node, the native part, the kernel, FUSE.
import type { Files } from '../../engines/machine.ts'
import { allowsOthers } from '../../mount/fusermount.ts'
import type { Trial } from '../trial.ts'
import { type Check, type Finding, ok, problem, together, warning } from './check.ts'

export interface Platform {
  /** Of the Node that runs this. */
  node: string
  /** Why the addon cannot be loaded, if it cannot. */
  noAddon: string | undefined
  kernel: string
  uid: number
  files: Files
  trial(): Promise<Trial>
}

const NODE_MIN = { major: 22, minor: 19 }
const FUSE_TIMEOUTS = ['max_request_timeout', 'default_request_timeout']

export const node: Check<Platform> = {
  name: 'node',
  async run({ node }) {
    const [major = 0, minor = 0] = node.split('.').map(Number)
    if (major > NODE_MIN.major || (major === NODE_MIN.major && minor >= NODE_MIN.minor)) return ok(`Node ${node}`)
    return problem(
      `Node ${node}`,
      `Use Node ${NODE_MIN.major}.${NODE_MIN.minor} or newer, or install lazylayer again, which brings one along.`,
    )
  },
}

export const addon: Check<Platform> = {
  name: 'native part',
  async run({ noAddon }) {
    if (noAddon === undefined) return ok('loaded')
    return problem(
      `cannot be loaded: ${noAddon}`,
      'Build it with npm run build in a checkout (it needs Rust), and install that again. Without it only mount --mount portable works.',
    )
  },
}

export const kernel: Check<Platform> = {
  name: 'kernel',
  async run({ kernel, trial }) {
    const { rung, why } = await trial()
    if (rung === 'erofs') return ok(`Linux ${kernel} mounts EROFS files: it answers for metadata and cached data`)
    const found = `Linux ${kernel} mounts no EROFS files here: ${why}`
    const needs = 'root, Linux 6.12 with EROFS, and a cache on a disk filesystem'
    if (rung === 'fuse') return warning(found, `The FUSE server answers instead, slower. EROFS needs ${needs}.`)
    return problem(found, `A store can be served neither by EROFS (it needs ${needs}) nor by FUSE.`)
  },
}

export const fuse: Check<Platform> = {
  name: 'fuse',
  async run({ files, uid }) {
    const device = await files.look('/dev/fuse')
    if (device === undefined) {
      return problem('/dev/fuse is missing', 'Load it with modprobe fuse; a container needs --device /dev/fuse.')
    }
    if (!device.writable) return problem('/dev/fuse may not be opened by this user', 'Run chmod 666 /dev/fuse.')
    // root mounts by itself
    if (uid === 0) return ok('/dev/fuse')
    return together([await helper(files), await others(files)])
  },
}

/** In a user namespace of its own, as in `podman unshare`, everybody mounts. */
const NEEDS_HELPER = 'this user cannot run lazylayer mount (podman unshare lazylayer serve does not need it)'

async function helper(files: Files): Promise<Finding> {
  const places = ['/usr/bin/fusermount3', '/bin/fusermount3', '/usr/local/bin/fusermount3']
  for (const path of places) {
    const found = await files.look(path)
    if (found === undefined) continue
    if (found.uid === 0 && (found.mode & 0o4000) !== 0) return ok(`/dev/fuse, ${path}`)
    return warning(`${path} is not setuid root: ${NEEDS_HELPER}`, 'Install package fuse3 anew.')
  }
  return warning(`fusermount3 is missing: ${NEEDS_HELPER}`, 'Install package fuse3.')
}

async function others(files: Files): Promise<Finding> {
  const text = await files.read('/etc/fuse.conf').catch(() => '') // one that may not be read allows nothing
  if (allowsOthers(text ?? '')) return ok('user_allow_other')
  return warning(
    'other users, and those of containers, do not see mounts of this user',
    'Write user_allow_other into /etc/fuse.conf.',
  )
}

export const requestTimeout: Check<Platform> = {
  name: 'fuse request timeout',
  async run({ files }) {
    const found = await Promise.all(FUSE_TIMEOUTS.map((name) => timeout(files, name)))
    return together(found.flat())
  },
}

/** Kernels that have it end a whole connection when one request waits for so long: a slow registry would. */
async function timeout(files: Files, name: string): Promise<Finding[]> {
  const text = await files.read(`/proc/sys/fs/fuse/${name}`)
  if (text === undefined) return [ok(`fs.fuse.${name} is not there`)]
  const seconds = text.trim()
  if (seconds === '0') return [ok(`fs.fuse.${name} is 0`)]
  return [
    problem(
      `fs.fuse.${name} is ${seconds} s: the kernel ends a mount with a read that waits longer for the registry`,
      `Run sysctl -w fs.fuse.${name}=0, and write it into /etc/sysctl.d.`,
    ),
  ]
}
