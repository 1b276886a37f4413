// The demo: an eStargz image of this machine's own files, an in-process registry over HTTP/2, a lazy mount of it, a few files
// read and compared with the originals, and, as root with Podman at hand, a container started from the same image.
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, mkdtemp, readdir, realpath, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { socketFor } from '../agent/agent-places.ts'
import { ask, type Status } from '../agent/socket.ts'
import { selfSigned } from '../build/certificate.ts'
import { writeImage } from '../build/layout-writer.ts'
import { layoutShelf, serveShelf } from '../build/registry.ts'
import type { SourceEntry } from '../build/source-entry.ts'
import { describe } from '../errors.ts'
import { errorText, sizeText } from './output.ts'

/** What is counted is what was asked for, not what follows by itself. */
const ASKED_ONLY = ['--background', 'off']

const run = promisify(execFile)
const CLONE = fileURLToPath(new URL('../../', import.meta.url))
const LAUNCHER = join(CLONE, 'src/cli/lazylayer.js')
/** What the container needs to start: these and their libraries are prioritized. */
const PROGRAMS = ['sh', 'cat', 'ls', 'sha256sum']
/** What nobody reads: most of an image. */
const BALLAST = ['/usr/share/perl', '/usr/share/doc', '/usr/lib/python3', '/usr/share/i18n']
const BALLAST_MAX_BYTES = 48 << 20
const TAG = 'demo/machine:latest'
const READ_AFTER_START = 3

const say = (text: string) => process.stdout.write(`${text}\n`)
const step = (text: string) => say(`\n== ${text}`)

/** Undone in reverse order, whatever happened. */
const undo: (() => Promise<unknown>)[] = []

async function cleanUp(): Promise<void> {
  for (let next = undo.pop(); next !== undefined; next = undo.pop()) {
    await next().catch((error) => say(`cleaning up: ${describe(error)}`))
  }
}

async function demo(): Promise<void> {
  await mkdir(join(CLONE, '.cache'), { recursive: true })
  const dir = await mkdtemp(join(CLONE, '.cache/demo-'))
  undo.push(() => rm(dir, { recursive: true, force: true }))

  step('An eStargz image from files of this machine')
  const { entries, prioritized, bytes } = await collect()
  const image = await writeImage({
    dir: join(dir, 'layout'),
    tag: 'latest',
    layers: [{ kind: 'estargz', entries, options: { prioritized } }],
    config: { Cmd: ['/bin/sh'], Env: ['PATH=/bin'] },
  })
  const stored = image.layers.reduce((sum, each) => sum + each.size, 0)
  say(
    `${entries.length} entries, ${sizeText(bytes)}, stored as ${sizeText(stored)}; ${prioritized.length} prioritized files`,
  )

  step('A registry in this process, HTTP/2 over TLS')
  const certificate = await selfSigned(['127.0.0.1', 'localhost'])
  await mkdir(join(dir, 'certificates'))
  await writeFile(join(dir, 'certificates/ca.crt'), certificate.cert)
  const registry = await serveShelf(layoutShelf(join(dir, 'layout')), certificate)
  undo.push(() => registry.close())
  const reference = `${registry.host}/${TAG}`
  say(`docker://${reference}`)

  step('A lazy mount')
  const mounted = join(dir, 'mounted')
  await mkdir(mounted)
  const certificates = ['--cert-dir', join(dir, 'certificates')]
  say('$ lazylayer mount IMAGE DIR')
  const started = performance.now()
  const agent = await start(dir, [
    'mount',
    `docker://${reference}`,
    mounted,
    '--cache',
    join(dir, 'cache'),
    ...ASKED_ONLY,
    ...certificates,
  ])
  say(agent.line.replaceAll(dir, '…'))
  const wanted = prioritized[0] ?? 'bin/sh'
  await compare(mounted, wanted)
  say(`first file read and compared after ${Math.round(performance.now() - started)} ms, Node's own start included`)
  const files = entries.filter((each) => typeof each.content === 'object' && !prioritized.includes(each.path))
  for (let i = 1; i <= READ_AFTER_START && files.length > 0; i++) {
    const file = files[Math.floor((files.length * i) / (READ_AFTER_START + 1))] as SourceEntry // an index below the length
    const before = performance.now()
    await compare(mounted, file.path)
    say(`/${file.path}: read and compared, ${Math.round(performance.now() - before)} ms`)
  }
  const { stdout: count } = await run('sh', ['-c', `find '${mounted}' | wc -l`])
  say(`walked all of it: ${count.trim()} entries, and no file was fetched for it`)
  report(await statusOf(dir, mounted), stored)
  await agent.stop()

  if (process.getuid?.() !== 0) say('\nNo container: that needs root (run it with sudo to see one).')
  else if (!(await has('podman'))) say('\nNo container: Podman is not installed (apt-get install podman).')
  else await container(dir, reference, certificates, stored)
}

/** Runs a container from the image through the additional layer store. */
async function container(dir: string, reference: string, certificates: string[], stored: number): Promise<void> {
  step('A container from the same image, through Podman')
  const root = join(dir, 'store')
  const agent = await start(dir, [
    'serve',
    root,
    '--diffid',
    'claimed',
    '--cache',
    join(dir, 'cache-podman'),
    ...ASKED_ONLY,
    ...certificates,
  ])
  say(agent.line.replaceAll(dir, '…'))
  const podman = await privatePodman(dir, root)
  undo.push(() => podman(['rmi', '--all', '--force']))
  say('$ podman pull IMAGE')
  await podman(['pull', '--quiet', ...certificates, reference])
  say("$ podman run IMAGE sh -c 'echo …; ls /'")
  const limits = ['--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1024:1024']
  const script = 'echo "hello from a container whose image is still in the registry"; ls /'
  const { stdout } = await podman(['run', '--rm', '--network', 'host', ...limits, reference, 'sh', '-c', script])
  say(stdout.trim())
  report(await statusOf(dir, root), stored)
  await podman(['rmi', '--force', reference])
  await agent.stop()
}

async function privatePodman(dir: string, root: string) {
  const storage = join(dir, 'storage.conf')
  const policy = join(dir, 'policy.json')
  await writeFile(policy, JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }))
  await writeFile(
    storage,
    [
      '[storage]',
      'driver = "overlay"',
      `graphroot = "${join(dir, 'graph')}"`,
      `runroot = "${join(dir, 'run')}"`,
      '[storage.options]',
      `additionallayerstores = ["${join(root, 'layers')}:ref"]`,
    ].join('\n'),
  )
  const runtime = (await has('runc')) ? ['--runtime', 'runc'] : []
  const global = ['--cgroup-manager', 'cgroupfs', '--events-backend', 'file', ...runtime]
  return (args: string[]) => {
    const signed = args[0] === 'pull' ? ['pull', '--signature-policy', policy, ...args.slice(1)] : args
    return run('podman', [...global, ...signed], { env: { ...process.env, CONTAINERS_STORAGE_CONF: storage } })
  }
}

async function has(program: string): Promise<boolean> {
  return await run('sh', ['-c', `command -v ${program}`]).then(
    () => true,
    () => false,
  )
}

function report(status: Status, stored: number): void {
  const { served, fetched, verified } = status.bytes
  say(
    `read ${sizeText(served)} through the mount; fetched ${sizeText(fetched)} in ${status.requests} requests; ` +
      `verified ${sizeText(verified)}; saved ${sizeText(Math.max(stored - fetched, 0))} of ${sizeText(stored)}`,
  )
}

/** A machine that runs this beside other work may be busy. */
const STATUS_TIMEOUT_MS = 30_000

async function statusOf(dir: string, mounted: string): Promise<Status> {
  const answer = await ask(
    socketFor(join(dir, 'run-lazylayer'), await realpath(mounted)),
    { op: 'status' },
    STATUS_TIMEOUT_MS,
  )
  if (answer?.ok !== true || answer.status === undefined) throw new Error('the agent does not answer')
  return answer.status
}

/** Starts the product as a user would, and waits for its one line. */
async function start(dir: string, args: string[]): Promise<{ line: string; stop(): Promise<void> }> {
  // systemd's variable for a service's runtime directory keeps the socket inside the clone
  const env = { ...process.env, RUNTIME_DIRECTORY: join(dir, 'run-lazylayer') }
  // a session of its own: Ctrl-C is for the demo, which then stops it in order
  const child = spawn(process.execPath, [LAUNCHER, ...args], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  })
  const exited = new Promise<void>((done) => child.once('exit', () => done()))
  const stop = async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
    await exited
  }
  undo.push(stop)
  for await (const line of createInterface({ input: child.stdout })) return { line, stop }
  throw new Error(`lazylayer ${args[0]} ended without mounting`)
}

async function compare(mounted: string, path: string): Promise<void> {
  const [found, original] = await Promise.all([hashOf(join(mounted, path)), hashOf(originals.get(path) ?? `/${path}`)])
  if (found !== original) throw new Error(`/${path} differs from the original`)
}

async function hashOf(file: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const bytes of createReadStream(file)) hash.update(bytes)
  return hash.digest('hex')
}

/** Path in the image -> file of this machine. */
const originals = new Map<string, string>()

async function collect(): Promise<{ entries: SourceEntry[]; prioritized: string[]; bytes: number }> {
  const entries = new Map<string, SourceEntry>()
  const prioritized: string[] = []
  let bytes = 0
  const add = async (path: string, file: string) => {
    if (entries.has(path)) return
    for (let at = dirname(path); at !== '.'; at = dirname(at)) {
      if (!entries.has(at)) entries.set(at, { path: at, type: 'dir' })
    }
    const { size, mode, mtimeMs } = await stat(file)
    entries.set(path, {
      path,
      type: 'file',
      mode: mode & 0o777,
      mtime: BigInt(Math.trunc(mtimeMs)) * 1_000_000n,
      content: { file, size },
    })
    originals.set(path, file)
    bytes += size
  }
  for (const name of PROGRAMS) {
    const { stdout } = await run('sh', ['-c', `command -v ${name}`])
    const program = stdout.trim()
    await add(`bin/${name}`, await realpath(program))
    prioritized.push(`bin/${name}`)
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", and the loader alone
    const { stdout: libraries } = await run('ldd', [program])
    for (const [, library] of libraries.matchAll(/(\/\S+) \(0x/g)) {
      const path = (library as string).slice(1) // the group always matches
      if (!entries.has(path)) prioritized.push(path)
      await add(path, await realpath(library as string))
    }
  }
  for (const folder of BALLAST) {
    const found = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []) // not on this machine
    for (const each of found) {
      if (bytes > BALLAST_MAX_BYTES) break
      const file = join(each.parentPath, each.name)
      if (each.isFile()) await add(file.slice(1), file)
    }
  }
  for (const name of ['proc', 'sys', 'dev', 'etc', 'tmp']) entries.set(name, { path: name, type: 'dir' })
  const ordered = [...entries.values()].sort((a, b) => (a.path < b.path ? -1 : 1))
  return { entries: ordered, prioritized, bytes }
}

let interrupted = false
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    if (interrupted) return
    interrupted = true
    say('\ninterrupted: cleaning up')
    void cleanUp().finally(() => process.exit(130)) // cleanUp reports its own errors
  })
}
try {
  await demo()
  await cleanUp()
  say('\nDone; nothing is left behind.')
} catch (error) {
  if (!interrupted) {
    process.stderr.write(errorText(error))
    await cleanUp()
    process.exitCode = 1
  }
}
