// A containerd of a test's own: its root, state, sockets, containers and mounts are below one work directory and in one sandbox.
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type Outcome, succeed } from './command.ts'
import { Cri, type CriAnswer } from './cri.ts'
import { lacking } from './needs.ts'
import { answers } from './registry.ts'
import { Sandbox } from './sandbox.ts'

/** trixie: 1.7. sid: what is newest there (2.1 at the time of writing). built: the programs that LAZYLAYER_TEST_CONTAINERD names a directory of. */
export type ContainerdFlavour = 'trixie' | 'sid' | 'built'

export interface ContainerdOptions {
  flavour: ContainerdFlavour
  /** A WorkDirectory's path. */
  work: string
  /** Of the proxy snapshotter; undefined: there is none, and its own is used. */
  socket: string | undefined
  /** What the proxy snapshotter is called. Default: lazylayer. */
  name?: string
  /** Whether it says which image a layer is of; k3s has it say nothing. Default: yes. */
  annotations?: boolean
  /** Registries; pods need the image pause:pause of the first. */
  trust: readonly { host: string; caFile: string }[]
}

const BUILT = process.env.LAZYLAYER_TEST_CONTAINERD

/** Why this flavour cannot run here; undefined where it can. */
export function containerdLacks(flavour: ContainerdFlavour): string | undefined {
  const home = process.env.LAZYLAYER_TEST_CACHE ?? '/var/cache/lazylayer-test'
  const hasSid = process.env.LAZYLAYER_TEST_SID !== undefined || existsSync(join(home, 'containerd-sid-1'))
  if (flavour === 'sid' && !hasSid) return 'LAZYLAYER_TEST_SID is not set'
  if (flavour === 'built' && BUILT === undefined) return 'LAZYLAYER_TEST_CONTAINERD names no directory'
  return lacking(['unshare', 'nsenter', 'runc', 'apt-get', 'dpkg'])
}

const READY_MS = 60_000
const CALL_MS = 120_000

export class Containerd {
  /** Its directory. */
  readonly path: string
  readonly #sandbox: Sandbox
  readonly #bin: string
  #running: Promise<Outcome> | undefined

  private constructor(path: string, sandbox: Sandbox, bin: string) {
    this.path = path
    this.#sandbox = sandbox
    this.#bin = bin
  }

  /** Where a Containerd of this work directory and flavour listens. */
  static addressIn(path: string): string {
    return join(path, 'c.sock')
  }

  /** Root only. Unpacks its programs where they are missing. It is not running yet. @param path of its own, existing */
  static async prepare(path: string, options: ContainerdOptions): Promise<Containerd> {
    const { work, flavour } = options
    const script = fileURLToPath(new URL('containerd.sh', import.meta.url))
    const bin = flavour === 'built' ? (BUILT ?? '') : (await succeed('sh', [script, flavour])).trim()
    for (const each of options.trust) {
      const folder = join(path, 'certs.d', each.host)
      await mkdir(folder, { recursive: true })
      await writeFile(join(folder, 'hosts.toml'), `server = "https://${each.host}"\nca = "${each.caFile}"\n`)
    }
    await writeFile(join(path, 'config.toml'), configuration(path, options))
    await writeNetwork(path)
    const configurationFolder = await mkdtemp(join(path, 'etc-'))
    const env = { PATH: `${bin}:/usr/sbin:/usr/bin:/sbin:/bin` }
    const sandbox = await Sandbox.start({ work, configuration: configurationFolder, root: '/', env })
    return new Containerd(path, sandbox, bin)
  }

  /** Resolves when it answers. */
  async start(): Promise<void> {
    const { path } = this
    const log = join(path, 'log')
    const line = `echo $$ >${path}/pid; exec ${this.#bin}/containerd --config ${path}/config.toml >>${log} 2>&1`
    this.#running = this.#sandbox.run(['sh', '-c', line], 24 * 3_600_000)
    this.#running.catch(() => {}) // its log tells
    const deadline = Date.now() + READY_MS
    while (!(await answers(Containerd.addressIn(path)))) {
      if (Date.now() > deadline) throw new Error(`containerd did not start: see ${log}`)
      await sleep(50)
    }
  }

  /** Kills it; its containers go on. */
  async kill(): Promise<void> {
    await this.run(['sh', '-c', `kill -9 $(cat ${this.path}/pid)`])
    await this.#running?.catch(() => {})
  }

  /** `ctr ARGS` in a namespace, whatever its exit code. */
  ctr(namespace: string, ...args: string[]): Promise<Outcome> {
    return this.run(this.#ctr(namespace, args))
  }

  /** The command line of `ctr`, for what starts it itself. */
  ctrWords(namespace: string, ...args: string[]): string[] {
    return this.#sandbox.words(this.#ctr(namespace, args))
  }

  #ctr(namespace: string, args: readonly string[]): string[] {
    return ['ctr', '--address', Containerd.addressIn(this.path), '--namespace', namespace, ...args]
  }

  /** As kubelet asks it. */
  get cri(): Cri {
    return new Cri(Containerd.addressIn(this.path))
  }

  /** Any program, where it runs. */
  run(argv: readonly string[], timeoutMs = CALL_MS): Promise<Outcome> {
    return this.#sandbox.run(argv, timeoutMs)
  }

  /** Pulls an image as kubelet has it pulled. @returns the gRPC status, and what it says */
  pullByCri(image: string): Promise<CriAnswer> {
    return this.cri.pullImage(image)
  }

  async close(): Promise<void> {
    await this.#sandbox.close()
  }
}

/** A network for pods that have one of their own, in which there is nobody: a plugin that says an address. */
async function writeNetwork(path: string): Promise<void> {
  const added = '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0"}],"ips":[{"address":"10.88.0.2/16","interface":0}]}'
  const version = '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}'
  const script = `case $CNI_COMMAND in ADD) echo '${added}';; VERSION) echo '${version}';; esac`
  const [programs, networks] = [join(path, 'cni'), join(path, 'networks')]
  await mkdir(programs)
  await mkdir(networks)
  for (const name of ['nobody', 'loopback'])
    await writeFile(join(programs, name), `#!/bin/sh\ncat >/dev/null\n${script}\n`, { mode: 0o755 })
  const network = { cniVersion: '1.0.0', name: 'nobody', plugins: [{ type: 'nobody' }] }
  await writeFile(join(networks, 'nobody.conflist'), JSON.stringify(network))
}

function configuration(path: string, options: ContainerdOptions): string {
  const { socket, flavour, trust, name: named = 'lazylayer', annotations = true } = options
  const sandbox = `${trust[0]?.host}/pause:pause`
  const name = socket === undefined ? 'overlayfs' : named
  const cri = 'plugins."io.containerd.grpc.v1.cri"'
  const v17 = `
[${cri}]
  sandbox_image = "${sandbox}"
  disable_apparmor = true
  restrict_oom_score_adj = true
[${cri}.containerd]
  snapshotter = "${name}"
  disable_snapshot_annotations = ${!annotations}
[${cri}.registry]
  config_path = "${path}/certs.d"
`
  const v2 = `
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "${name}"
  use_local_image_pull = ${!annotations}
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "${sandbox}"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "${path}/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  ${flavour === 'built' ? `bin_dirs = ["${path}/cni"]` : `bin_dir = "${path}/cni"`}
  conf_dir = "${path}/networks"
`
  const plugin = `[proxy_plugins.${name}]
  type = "snapshot"
  address = "${socket}"
  ${flavour === 'trixie' ? '' : 'capabilities = ["remap-ids"]'}
  [proxy_plugins.${name}.exports]
    root = "${path}"
    enable_remote_snapshot_annotations = "true"
`
  return `version = ${flavour === 'trixie' ? 2 : 3}
root = "${path}/root"
state = "${path}/state"
[grpc]
  address = "${Containerd.addressIn(path)}"
[ttrpc]
  address = "${path}/t.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "${path}/opt"
${socket === undefined ? '' : plugin}[plugins."io.containerd.transfer.v1.local"]
  config_path = "${path}/certs.d"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "${name}"
  differ = "walking"
${flavour === 'trixie' ? v17 : v2}`
}
