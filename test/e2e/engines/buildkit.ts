// A buildkitd of a test's own: its root, socket, builds and mounts are below one work directory and in one sandbox.
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Outcome } from './command.ts'
import { Containerd } from './containerd.ts'
import { findProgram, lacking, program } from './needs.ts'
import { answers } from './registry.ts'
import { Sandbox } from './sandbox.ts'

/** Where its layers come from: from a snapshotter's socket of its own, or none, or from a containerd that knows one. */
export type BuildKitWorker =
  | { is: 'oci'; socket: string | undefined }
  // in whose mount namespace it runs: containerd is to see what it mounts
  | { is: 'containerd'; containerd: Containerd }

export interface BuildKitOptions {
  /** A WorkDirectory's path. */
  work: string
  worker: BuildKitWorker
  /** Of the snapshotter. */
  name: string
  trust: readonly { host: string; caFile: string }[]
}

/** A directory with buildkitd and buildctl, which no Debian has. */
const BUILT = process.env.LAZYLAYER_TEST_BUILDKIT

/** Why it cannot run here; undefined where it can. */
export function buildKitLacks(): string | undefined {
  const isHere = BUILT !== undefined || (findProgram('buildkitd') && findProgram('buildctl'))
  if (!isHere) return 'buildkitd is not installed, and LAZYLAYER_TEST_BUILDKIT names no directory of it'
  return lacking(['unshare', 'nsenter', 'runc'])
}

const programOf = (name: string) => (BUILT === undefined ? program(name) : join(BUILT, name))

const READY_MS = 60_000
const BUILD_MS = 300_000

export class BuildKit {
  readonly #path: string
  readonly #sandbox: Pick<Sandbox, 'run'>
  readonly #own: Sandbox | undefined

  private constructor(path: string, sandbox: Pick<Sandbox, 'run'>, own: Sandbox | undefined) {
    this.#path = path
    this.#sandbox = sandbox
    this.#own = own
  }

  /** Where a BuildKit of this directory listens. */
  static addressIn(path: string): string {
    return join(path, 'b.sock')
  }

  /** Root only. Resolves when it answers. @param path of its own, existing */
  static async start(path: string, options: BuildKitOptions): Promise<BuildKit> {
    const { worker, work } = options
    await writeFile(join(path, 'buildkitd.toml'), configuration(path, options))
    const etc = await mkdtemp(join(path, 'etc-'))
    const env = { PATH: '/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' }
    const own = worker.is === 'oci' ? await Sandbox.start({ work, configuration: etc, root: '/', env }) : undefined
    const sandbox = worker.is === 'oci' ? (own as Sandbox) : worker.containerd
    const line = `exec ${programOf('buildkitd')} --config ${path}/buildkitd.toml >>${path}/log 2>&1`
    sandbox.run(['sh', '-c', line], 24 * 3_600_000).catch(() => {}) // its log tells
    const deadline = Date.now() + READY_MS
    while (!(await answers(BuildKit.addressIn(path)))) {
      if (Date.now() > deadline) throw new Error(`buildkitd did not start: see ${path}/log`)
      await sleep(50)
    }
    return new BuildKit(path, sandbox, own)
  }

  /** Builds from a Dockerfile's lines, nothing of it from its cache. Its log is on stderr. */
  async build(dockerfile: string, ...more: string[]): Promise<Outcome> {
    const context = await mkdtemp(join(this.#path, 'context-'))
    await writeFile(join(context, 'Dockerfile'), dockerfile)
    const local = ['--local', `context=${context}`, '--local', `dockerfile=${context}`]
    const how = ['--frontend', 'dockerfile.v0', '--no-cache', '--progress', 'plain']
    return await this.ctl('build', ...how, ...local, ...more)
  }

  /** `buildctl ARGS`, whatever its exit code. */
  ctl(...args: string[]): Promise<Outcome> {
    return this.#sandbox.run(
      [programOf('buildctl'), '--addr', `unix://${BuildKit.addressIn(this.#path)}`, ...args],
      BUILD_MS,
    )
  }

  async close(): Promise<void> {
    await this.#own?.close() // else it ends with containerd
  }
}

function configuration(path: string, { worker, name, trust }: BuildKitOptions): string {
  const own =
    worker.is === 'oci'
      ? `[worker.oci]
  enabled = true
  snapshotter = "${name}"
  ${worker.socket === undefined ? '' : `proxySnapshotterPath = "${worker.socket}"`}
  binary = "runc"
  networkMode = "host"
[worker.containerd]
  enabled = false
`
      : `[worker.containerd]
  enabled = true
  address = "${Containerd.addressIn(worker.containerd.path)}"
  snapshotter = "${name}"
  networkMode = "host"
[worker.oci]
  enabled = false
`
  // what is on the loopback it takes for plain HTTP, unless it is told otherwise
  const registries = trust.map(({ host, caFile }) => `[registry."${host}"]\n  http = false\n  ca = ["${caFile}"]\n`)
  return `root = "${path}/root"
[grpc]
  address = ["unix://${BuildKit.addressIn(path)}"]
${own}${registries.join('')}`
}

/** Its directory, which is short: sockets lie in it. */
export async function directoryIn(work: string, name: string): Promise<string> {
  const path = join(work, name)
  await mkdir(path)
  return path
}
