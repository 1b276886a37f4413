// stargz-store as Podman's users start it: the additional layer store of stargz-snapshotter, with its own defaults.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { NAMED, type Served } from './image.ts'
import { detachBelow, endMount, mountsBelow } from './mount.ts'

const run = promisify(execFile)

export interface StargzServing {
  image: Served
  /** Where to mount. */
  dir: string
  /** Whatever lies in it; a missing one is made. */
  cache: string
}

export interface StargzStore {
  pid: number
  stop(): Promise<void>
}

const READY_TIMEOUT_MS = 30_000
const POLL_MS = 10

/** @throws where it is not set: nobody has it by chance */
export function stargzStoreProgram(): string {
  const named = process.env.LAZYLAYER_STARGZ_STORE
  if (!named)
    throw new Error('LAZYLAYER_STARGZ_STORE is not set: a stargz-store program with containerd-stargz-grpc beside it')
  return named
}

/** As the program beside it says, which is built from the same sources. */
export async function stargzStoreVersion(): Promise<string> {
  const { stdout } = await run(join(dirname(stargzStoreProgram()), 'containerd-stargz-grpc'), ['--version'])
  return stdout.trim()
}

/**
 * It speaks plain HTTP to whatever is on the loopback, so it is told that a mirror has a name, and for itself alone that the name is
 * there: TLS costs it what it costs everybody.
 * @throws what it says, when it ends before it has mounted
 */
export async function serveStargz({ image, dir, cache }: StargzServing): Promise<StargzStore> {
  for (const each of [dir, cache]) await mkdir(each, { recursive: true })
  await share(dir)
  const { host, port } = new URL(image.origin)
  const files = { hosts: join(cache, 'hosts'), ca: join(cache, 'ca.crt'), config: join(cache, 'config.toml') }
  await writeFile(files.hosts, `127.0.0.1 localhost ${NAMED}\n`)
  await writeFile(files.ca, image.certificate)
  await writeFile(files.config, `[[resolver.host."${host}".mirrors]]\nhost = "${NAMED}:${port}"\n`)
  // private first: where / is shared, everybody would see the file
  const script = 'mount --make-private / && mount --bind "$1" /etc/hosts && shift && exec "$@"'
  const words = [
    '--config',
    files.config,
    '--root',
    join(cache, 'root'),
    '--addr',
    join(cache, 'socket'),
    '--log-level',
    'error',
    dir,
  ]
  const child = spawn(
    'unshare',
    ['--mount', '--propagation', 'unchanged', 'sh', '-c', script, 'sh', files.hosts, stargzStoreProgram(), ...words],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, SSL_CERT_FILE: files.ca } },
  )
  await once(child, 'spawn')
  let complaint = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      complaint = text
    })
  }
  const stop = async () => {
    await endMount(child, dir)
    await detachBelow(dir)
  }
  const begin = performance.now()
  const isMounted = (each: { dir: string; type: string }) => each.dir === dir && each.type.startsWith('fuse')
  while (!(await mountsBelow(dir)).some(isMounted)) {
    if (child.exitCode !== null) throw new Error(`stargz-store ended before it had mounted: ${complaint.trim()}`)
    if (performance.now() - begin > READY_TIMEOUT_MS) {
      await stop()
      throw new Error('stargz-store did not mount')
    }
    await setTimeout(POLL_MS)
  }
  return { pid: child.pid as number, stop } // it was spawned, and execs
}

/** Makes it a mount that shows what is mounted on it from another namespace. */
async function share(dir: string): Promise<void> {
  await run('mount', ['--bind', dir, dir])
  await run('mount', ['--make-private', dir]) // first: where / is shared, it would be in that peer group
  await run('mount', ['--make-shared', dir])
}
