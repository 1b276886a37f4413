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

/** Beside stargz-store. @throws as stargzStoreProgram */
export function stargzSnapshotterProgram(): string {
  return join(dirname(stargzStoreProgram()), 'containerd-stargz-grpc')
}

/** As the program beside it says, which is built from the same sources. */
export async function stargzVersion(): Promise<string> {
  return (await run(stargzSnapshotterProgram(), ['--version'])).stdout.trim()
}

/** @throws what it says, when it ends before it has mounted */
export async function serveStargz({ image, dir, cache }: StargzServing): Promise<StargzStore> {
  for (const each of [dir, cache]) await mkdir(each, { recursive: true })
  await share(dir)
  const words = ['--root', join(cache, 'root'), '--addr', join(cache, 'socket'), '--log-level', 'error', dir]
  const { child, complaint } = await spawnStargz(stargzStoreProgram(), words, image, cache)
  const stop = async () => {
    await endMount(child, dir)
    await detachBelow(dir)
  }
  const begin = performance.now()
  const isMounted = (each: { dir: string; type: string }) => each.dir === dir && each.type.startsWith('fuse')
  while (!(await mountsBelow(dir)).some(isMounted)) {
    if (child.exitCode !== null) throw new Error(`stargz-store ended before it had mounted: ${complaint()}`)
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

/**
 * One of stargz-snapshotter's programs. It speaks plain HTTP to whatever is on the loopback, so it is told that a mirror has a name, and for
 * itself alone that the name is there: TLS costs it what it costs everybody.
 * @param words its arguments, but for its configuration
 * @param dir where that is written
 * @returns its process, and what it said last
 */
export async function spawnStargz(
  program: string,
  words: readonly string[],
  { origin, certificate }: Served,
  dir: string,
) {
  const { host, port } = new URL(origin)
  const files = { hosts: join(dir, 'hosts'), ca: join(dir, 'ca.crt'), config: join(dir, 'config.toml') }
  await writeFile(files.hosts, `127.0.0.1 localhost ${NAMED}\n`)
  await writeFile(files.ca, certificate)
  await writeFile(files.config, `[[resolver.host."${host}".mirrors]]\nhost = "${NAMED}:${port}"\n`)
  // private first: where / is shared, everybody would see the file
  const script = 'mount --make-private / && mount --bind "$1" /etc/hosts && shift && exec "$@"'
  const within = ['--mount', '--propagation', 'unchanged', 'sh', '-c', script, 'sh', files.hosts]
  const child = spawn('unshare', [...within, program, '--config', files.config, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, SSL_CERT_FILE: files.ca },
  })
  await once(child, 'spawn')
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said = text
    })
  }
  return { child, complaint: () => said.trim() }
}
