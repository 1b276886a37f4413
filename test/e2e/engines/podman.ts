// A Podman of a test's own: storage, configuration, temporary files, processes and mounts are all below one work directory and in one
// sandbox, so that a machine's own Podman and its images are neither seen nor touched.
import { existsSync, readFileSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, rmdir, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { command, type Outcome, succeed } from './command.ts'
import { lacking, PODMAN_PROGRAMS, program, TRIXIE_PROGRAMS } from './needs.ts'
import { Sandbox } from './sandbox.ts'

/**
 * debian12: the host's (4.3.1 there). trixie: 5.4.2, in a Debian 13 root that `trixie.sh` makes once. sid: what is newest (5.8.6 at
 * the time of writing), in a root that it makes where LAZYLAYER_TEST_SID is set, because unstable cannot always be installed.
 */
export type Flavour = 'debian12' | 'trixie' | 'sid'

export interface PodmanOptions {
  flavour: Flavour
  /** A WorkDirectory's path; mounts below it are seen by this Podman. */
  work: string
  /** As in storage.conf, `:ref` included. */
  additionalLayerStores?: readonly string[]
  additionalImageStores?: readonly string[]
  /** Registries whose certificates are signed by a CA of their own. */
  trust?: readonly { host: string; caFile: string }[]
  /** Lines added to registries.conf. */
  registriesConf?: string
}

const RUN_TIMEOUT_MS = 500_000
const CLOSE_TIMEOUT_MS = 120_000
// Debootstrap and Podman's packages; 40 s on an idle machine, much more on a busy one.
const TRIXIE_TIMEOUT_MS = 580_000

/** Why this flavour cannot run here; undefined where it can. */
export function podmanLacks(flavour: Flavour): string | undefined {
  if (flavour === 'trixie') return lacking(TRIXIE_PROGRAMS)
  if (flavour === 'sid') {
    const home = process.env.LAZYLAYER_TEST_CACHE ?? '/var/cache/lazylayer-test'
    const wanted = process.env.LAZYLAYER_TEST_SID !== undefined || existsSync(join(home, 'sid-1'))
    return wanted ? lacking(TRIXIE_PROGRAMS) : 'LAZYLAYER_TEST_SID is not set'
  }
  return lacking(PODMAN_PROGRAMS) ?? (debianRelease().startsWith('12') ? undefined : 'not Debian 12')
}

export class Podman {
  /** Podman's own directory; the storage is at `graph` in it. */
  readonly path: string
  readonly #sandbox: Sandbox
  readonly #cgroup: string

  private constructor(path: string, sandbox: Sandbox, cgroup: string) {
    this.path = path
    this.#sandbox = sandbox
    this.#cgroup = cgroup
  }

  /** Root only. Makes the flavour's root where it is missing. */
  static async start(options: PodmanOptions): Promise<Podman> {
    const root = options.flavour === 'debian12' ? '/' : await debianRoot(options.flavour)
    const path = await mkdtemp(join(options.work, 'podman-'))
    const configuration = join(path, 'etc')
    for (const folder of ['etc', 'home', 'tmp', 'graph', 'run']) await mkdir(join(path, folder))
    await configure(configuration, path, options)
    // 5.x warns about cgroup v1 with every command.
    const env = { HOME: join(path, 'home'), TMPDIR: join(path, 'tmp'), PODMAN_IGNORE_CGROUPSV1_WARNING: '1' }
    const sandbox = await Sandbox.start({ work: options.work, configuration, root, env })
    return new Podman(path, sandbox, `lazylayer-test-${basename(path)}`)
  }

  /** `podman ARGS`, whatever its exit code. `run` and `create` need what `container` adds. */
  run(args: readonly string[], timeoutMs = RUN_TIMEOUT_MS): Promise<Outcome> {
    return this.exec(['podman', ...args], timeoutMs)
  }

  /** `podman run ARGS` (or `create`), with what makes containers start on a machine whose limits cannot be raised. */
  container(verb: 'run' | 'create', args: readonly string[], timeoutMs = RUN_TIMEOUT_MS): Promise<Outcome> {
    return this.exec(this.containerWords(verb, args), timeoutMs)
  }

  /** The command line of `container`, for what starts it itself. */
  containerWords(verb: 'run' | 'create', args: readonly string[]): string[] {
    return ['podman', verb, '--cgroup-parent', `/${this.#cgroup}`, ...args]
  }

  /** As `run`; an exit code other than 0 rejects. @returns stdout without the last line's end */
  async succeed(args: readonly string[], timeoutMs = RUN_TIMEOUT_MS): Promise<string> {
    const outcome = await this.run(args, timeoutMs)
    if (outcome.code !== 0) throw new Error(`podman ${args.join(' ')}: exit code ${outcome.code}\n${outcome.stderr}`)
    return outcome.stdout.trimEnd()
  }

  /** Any program, where this Podman runs. */
  exec(argv: readonly string[], timeoutMs = RUN_TIMEOUT_MS): Promise<Outcome> {
    return this.#sandbox.run(argv, timeoutMs)
  }

  /** The command line of `exec`, for what starts it itself. */
  execWords(argv: readonly string[]): string[] {
    return this.#sandbox.words(argv)
  }

  /** Removes the containers, then ends the processes and mounts. The files go with the work directory. */
  async close(): Promise<void> {
    try {
      await this.run(['rm', '--all', '--force', '--time', '0'], CLOSE_TIMEOUT_MS)
    } finally {
      await this.#sandbox.close()
      await removeCgroups(this.#cgroup)
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function debianRelease(): string {
  try {
    return readFileSync('/etc/debian_version', 'utf8')
  } catch {
    return '' // another distribution
  }
}

export async function debianRoot(suite: string): Promise<string> {
  const script = fileURLToPath(new URL('trixie.sh', import.meta.url))
  return (await succeed('sh', [script, suite], { timeoutMs: TRIXIE_TIMEOUT_MS })).trim()
}

async function configure(folder: string, path: string, options: PodmanOptions): Promise<void> {
  const strings = (values: readonly string[] = []) => JSON.stringify(values)
  await writeFile(join(folder, 'policy.json'), JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }))
  await writeFile(
    join(folder, 'registries.conf'),
    `unqualified-search-registries = []\nshort-name-mode = "disabled"\n${options.registriesConf ?? ''}`,
  )
  await writeFile(
    join(folder, 'storage.conf'),
    `[storage]
driver = "overlay"
graphroot = "${path}/graph"
runroot = "${path}/run"
[storage.options]
additionallayerstores = ${strings(options.additionalLayerStores)}
additionalimagestores = ${strings(options.additionalImageStores)}
`,
  )
  await writeFile(
    join(folder, 'containers.conf'),
    `[containers]
netns = "host"
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
tmp_dir = "${path}/run/libpod"
image_copy_tmp_dir = "${path}/tmp"
`,
  )
  for (const { host, caFile } of options.trust ?? []) {
    const certificates = join(folder, 'certs.d', host)
    await mkdir(certificates, { recursive: true })
    await copyFile(caFile, join(certificates, 'ca.crt'))
  }
}

/** Podman leaves a container's parent group behind, in each hierarchy of cgroup v1. */
async function removeCgroups(name: string): Promise<void> {
  const { stdout } = await command(program('find'), ['/sys/fs/cgroup', '-depth', '-type', 'd', '-path', `*/${name}*`])
  for (const group of stdout.split('\n').filter(Boolean)) await rmdir(group).catch(() => undefined) // a busy one goes at the next boot
}
