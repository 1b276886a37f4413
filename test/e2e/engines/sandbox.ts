// Namespaces of mounts and processes that engines run in, with the host's root or another one. They end with this process, however
// it ends, and take every process and mount in them along; so an engine's containers, monitors and overlays never outlive a test.
//
//   work directory   mounts made below it on the host, before or later, are seen inside, at the same path
//   /etc/containers  the engine's configuration is ours alone, at the place where users have theirs
//   /proc, /dev/shm  private (Podman's locks have one name a machine)
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { command, type Outcome } from './command.ts'
import { program } from './needs.ts'

export interface SandboxOptions {
  /** A WorkDirectory's path. */
  work: string
  /** Bound to /etc/containers. */
  configuration: string
  /** Another root directory; '/' keeps the host's. */
  root: string
  env: Record<string, string>
}

const READY_TIMEOUT_MS = 120_000
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

// bash, because as process 1 it reaps orphans. It ends, and all with it, when its standard input does.
const SETUP = `
set -eu
root=\${ROOT%/}
# pivot_root wants a mount
if [ -n "$root" ]; then mount --bind "$root" "$root"; fi
mount -t proc proc "$root/proc"
if [ -n "$root" ]; then
  mount --rbind /dev "$root/dev"
  mount --rbind /sys "$root/sys"
  for own in run tmp var/tmp; do mount -t tmpfs -o mode=1777 tmpfs "$root/$own"; done
  mkdir -p "$root$WORK" "$root/run/host"
  mount --rbind "$WORK" "$root$WORK"
fi
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
# root's cache of where blobs were seen is there, whatever storage.conf says
mkdir -p "$root/etc/containers" "$root/var/lib/containers"
mount -t tmpfs tmpfs "$root/var/lib/containers"
mount --bind "$CONFIGURATION" "$root/etc/containers"
if [ -n "$root" ]; then
  cd "$root"
  pivot_root . run/host
  umount -l /run/host
fi
cd /
echo ready
read -r _ || true
`

export class Sandbox {
  readonly #holder: ChildProcess
  readonly #env: Record<string, string>
  readonly #ended: Promise<unknown>

  private constructor(holder: ChildProcess, env: Record<string, string>) {
    this.#holder = holder
    this.#env = env
    this.#ended = once(holder, 'exit')
  }

  /** Root only. @throws Error with what the set-up printed */
  static async start(options: SandboxOptions): Promise<Sandbox> {
    const { work, configuration, root, env } = options
    const namespaces = ['--mount', '--pid', '--fork', '--kill-child', '--propagation', 'slave']
    const holder = spawn(program('unshare'), [...namespaces, 'bash', '-c', SETUP], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { PATH, WORK: work, CONFIGURATION: configuration, ROOT: root },
    })
    const sandbox = new Sandbox(holder, env)
    let printed = ''
    holder.stderr.setEncoding('utf8').on('data', (text: string) => {
      printed += text
    })
    const deadline = setTimeout(() => holder.kill('SIGKILL'), READY_TIMEOUT_MS)
    let ready = false
    for await (const line of createInterface({ input: holder.stdout })) {
      ready = line === 'ready'
      if (ready) break
    }
    clearTimeout(deadline)
    if (!ready) {
      await sandbox.#ended
      throw new Error(`a sandbox over ${root} could not be made: ${printed}`)
    }
    return sandbox
  }

  /** Runs a program inside. A time limit that passes leaves it to the sandbox's end. */
  run(argv: readonly string[], timeoutMs: number): Promise<Outcome> {
    const [enter = '', ...rest] = this.words(argv)
    return command(enter, rest, { timeoutMs, cwd: '/' })
  }

  /** The command line that does, for what starts it itself. */
  words(argv: readonly string[]): string[] {
    const at = `/proc/${this.#holder.pid}/ns`
    const assignments = Object.entries({ PATH, LANG: 'C.UTF-8', ...this.#env }).map(
      ([name, value]) => `${name}=${value}`,
    )
    const enter = [`--mount=${at}/mnt`, `--pid=${at}/pid_for_children`, '--', '/usr/bin/env', '-i']
    return [program('nsenter'), ...enter, ...assignments, ...argv]
  }

  /** Ends every process inside; resolves when none is left. */
  async close(): Promise<void> {
    this.#holder.stdin?.end()
    await this.#ended
  }
}
