// containerd-stargz-grpc as containerd's users start it: the snapshotter of stargz-snapshotter, with its own defaults.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { answers, end } from '../test/e2e/engines/registry.ts'
import { NAMED, type Served } from './image.ts'
import { detachBelow } from './mount.ts'
import { stargzStoreProgram } from './stargz-store.ts'

const run = promisify(execFile)
const READY_TIMEOUT_MS = 30_000
const POLL_MS = 10

export interface StargzSnapshotter {
  pid: number
  stop(): Promise<void>
}

/** Beside stargz-store, which LAZYLAYER_STARGZ_STORE names. @throws where that is not set */
export function stargzSnapshotterProgram(): string {
  return join(dirname(stargzStoreProgram()), 'containerd-stargz-grpc')
}

export async function stargzSnapshotterVersion(): Promise<string> {
  return (await run(stargzSnapshotterProgram(), ['--version'])).stdout.trim()
}

/**
 * Like serveStargz it is told a name for the registry, since it speaks plain HTTP to addresses of the loopback.
 * @param dir below a WorkDirectory, so that containerd sees what is mounted in it
 */
export async function serveStargzSnapshotter(image: Served, dir: string, socket: string): Promise<StargzSnapshotter> {
  const root = join(dir, 'root')
  await mkdir(root, { recursive: true })
  const { host, port } = new URL(image.origin)
  const files = { hosts: join(dir, 'hosts'), ca: join(dir, 'ca.crt'), config: join(dir, 'config.toml') }
  await writeFile(files.hosts, `127.0.0.1 localhost ${NAMED}\n`)
  await writeFile(files.ca, image.certificate)
  await writeFile(files.config, `[[resolver.host."${host}".mirrors]]\nhost = "${NAMED}:${port}"\n`)
  const script = 'mount --make-private / && mount --bind "$1" /etc/hosts && shift && exec "$@"'
  const words = ['--config', files.config, '--root', root, '--address', socket, '--log-level', 'error']
  const child = spawn(
    'unshare',
    [
      ...['--mount', '--propagation', 'unchanged'],
      ...['sh', '-c', script, 'sh', files.hosts, stargzSnapshotterProgram(), ...words],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, SSL_CERT_FILE: files.ca } },
  )
  await once(child, 'spawn')
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = text
  })
  const stop = async () => {
    await end(child)
    await detachBelow(dir)
  }
  const deadline = performance.now() + READY_TIMEOUT_MS
  while (!(await answers(socket))) {
    if (child.exitCode !== null) throw new Error(`containerd-stargz-grpc ended: ${complaint.trim()}`)
    if (performance.now() > deadline) {
      await stop()
      throw new Error('containerd-stargz-grpc did not listen')
    }
    await setTimeout(POLL_MS)
  }
  return { pid: child.pid as number, stop } // it was spawned, and execs
}
