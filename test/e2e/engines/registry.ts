// A real registry of a test's own: Debian's docker-registry on a socket, behind Debian's nginx with TLS, HTTP/2 and a log that tells
// every request. Nothing of it is a service, all of it is below one directory, and it ends only processes it started.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { request } from 'node:https'
import { type AddressInfo, connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { makeCertificate } from './certificate.ts'
import { program } from './needs.ts'
import { push } from './push.ts'

/** One request, as nginx answered it. */
export interface Request {
  method: string
  uri: string
  kind: Kind
  status: number
  /** Of the answer's body, as sent. */
  bytes: number
  /** The Range header; '' when there was none. */
  range: string
  /** `HTTP/1.1`, `HTTP/2.0` */
  protocol: string
  userAgent: string
}

/** ping: `/v2/` itself. */
export type Kind = 'ping' | 'manifest' | 'blob' | 'other'

export interface DockerRegistry {
  /** `127.0.0.1:PORT`: what image references begin with. */
  readonly host: string
  /** PEM of the CA that signed the registry's certificate. */
  readonly caFile: string
  /** Holds `ca.crt`: what `--cert-dir` wants. */
  readonly certDir: string
  /** Uploads the image that `tag` names in an OCI layout as `name:tag`, byte for byte, past nginx and its log. @returns its manifest's digest */
  pushLayout(layout: string, tag: string, name: string): Promise<string>
  /** Every request answered up to now, since the start or `clear`, in the order of their ends. */
  log(): Promise<Request[]>
  /** Forgets the requests up to now. */
  clear(): Promise<void>
  /** Ends both programs; the files stay. */
  stop(): Promise<void>
}

export interface RegistryOptions {
  /** Existing; the registry makes a directory of its own in it. */
  dir: string
  /** With it, nginx wants basic authentication. */
  credentials?: { username: string; password: string }
  /** With it, nginx keeps what the registry answered, as caches in front of registries do. */
  cache?: true
}

const START_TIMEOUT_MS = 120_000
const STOP_TIMEOUT_MS = 30_000
// Another process may take the free port before nginx does.
const PORT_TRIES = 5

/** Needs `REGISTRY_PROGRAMS`; no rights. @throws Error with what the programs printed */
export async function startDockerRegistry(options: RegistryOptions): Promise<DockerRegistry> {
  const path = await mkdtemp(join(options.dir, 'registry-'))
  const socket = join(path, 'registry.sock')
  const certDir = join(path, 'certs')
  const accessLog = join(path, 'access.log')
  await mkdir(certDir)
  const certificate = await makeCertificate(certDir)
  await writeFile(join(path, 'registry.yml'), registryConfiguration(path, socket))
  if (options.credentials !== undefined) {
    const { username, password } = options.credentials
    await writeFile(join(path, 'users'), `${username}:{PLAIN}${password}\n`)
  }
  const registry = await start(program('docker-registry'), ['serve', join(path, 'registry.yml')], () => answers(socket))

  const listen = async (): Promise<{ port: number; nginx: ChildProcess }> => {
    for (let tries = 1; ; tries++) {
      const port = await freePort()
      const configuration = join(path, 'nginx.conf')
      await writeFile(configuration, nginxConfiguration({ path, socket, port, accessLog, ...certificate, ...options }))
      try {
        const nginx = await start(program('nginx'), ['-c', configuration, '-p', path], () => answers(port))
        return { port, nginx }
      } catch (error) {
        if (tries === PORT_TRIES) throw error
      }
    }
  }
  const { port, nginx } = await listen().catch(async (error: unknown) => {
    await end(registry)
    throw error
  })

  let marks = 0
  let forgotten = 0
  // nginx has one worker, which writes its log in order: once a request of ours is in it, every one that ended before is.
  const lines = async (): Promise<string[]> => {
    const mark = `/-/mark/${++marks}`
    await get(port, await readFile(certificate.caFile), mark)
    for (let waited = 0; waited < START_TIMEOUT_MS; waited += 5) {
      const all = (await readFile(accessLog, 'utf8')).split('\n')
      const at = all.findIndex((line) => line.includes(`"${mark}"`))
      if (at >= 0) return all.slice(0, at).filter((line) => !line.includes('"/-/mark/'))
      await sleep(5)
    }
    throw new Error(`${accessLog} never told of ${mark}`)
  }

  return {
    host: `127.0.0.1:${port}`,
    caFile: certificate.caFile,
    certDir,
    pushLayout: (layout, tag, name) => push({ layout, tag, name, socket }),
    log: async () => (await lines()).slice(forgotten).map(parseLine),
    clear: async () => {
      forgotten = (await lines()).length
    },
    stop: async () => {
      await end(nginx)
      await end(registry)
    },
  }
}

/** What requests were for, with how many there were and the bytes of their answers. */
export function tally(requests: readonly Request[]): Record<Kind | 'all', { requests: number; bytes: number }> {
  const sum = (some: readonly Request[]) => ({
    requests: some.length,
    bytes: some.reduce((n, { bytes }) => n + bytes, 0),
  })
  const of = (kind: Kind) => sum(requests.filter((request) => request.kind === kind))
  return { all: sum(requests), ping: of('ping'), manifest: of('manifest'), blob: of('blob'), other: of('other') }
}

function parseLine(line: string): Request {
  const fields = JSON.parse(line) as Omit<Request, 'kind'> // nginx writes it, by log_format
  return { ...fields, kind: kindOf(fields.uri) }
}

/** Of a request's path. */
export function kindOf(uri: string): Kind {
  if (uri === '/v2/') return 'ping'
  if (/^\/v2\/.+\/manifests\//.test(uri)) return 'manifest'
  if (/^\/v2\/.+\/blobs\//.test(uri)) return 'blob'
  return 'other'
}

function registryConfiguration(path: string, socket: string): string {
  return `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: ${path}/storage}
  delete: {enabled: true}
http:
  net: unix
  addr: ${socket}
  relativeurls: true
  secret: test
`
}

interface NginxOptions extends RegistryOptions {
  path: string
  socket: string
  port: number
  accessLog: string
  certificateFile: string
  keyFile: string
}

function nginxConfiguration(options: NginxOptions): string {
  const { path, socket, port, accessLog, certificateFile, keyFile, credentials, cache } = options
  const authentication = credentials === undefined ? '' : `auth_basic "test"; auth_basic_user_file ${path}/users;`
  const caching = cache
    ? 'proxy_cache blobs; proxy_cache_valid 200 206 1h; proxy_cache_key $request_method$uri;'
    : 'proxy_buffering off;'
  const user = process.geteuid?.() === 0 ? 'user root;' : ''
  const own = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (use) => `${use}_temp_path ${path}/nginx-${use};`,
  )
  return `daemon off;
${user}
worker_processes 1;
pid ${path}/nginx.pid;
error_log stderr error;
events { worker_connections 512; }
http {
  ${own.join('\n  ')}
  log_format requests escape=json '{"method":"$request_method","uri":"$request_uri","status":$status,"bytes":$body_bytes_sent,'
    '"range":"$http_range","protocol":"$server_protocol","userAgent":"$http_user_agent"}';
  access_log ${accessLog} requests;
  client_max_body_size 0;
  ${cache ? `proxy_cache_path ${path}/cache keys_zone=blobs:1m;` : ''}
  server {
    listen 127.0.0.1:${port} ssl http2;
    ssl_certificate ${certificateFile};
    ssl_certificate_key ${keyFile};
    location /-/mark/ { return 204; }
    location / {
      ${authentication}
      proxy_pass http://unix:${socket}:;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto https;
      ${caching}
      proxy_http_version 1.1;
    }
  }
}
`
}

/** Starts a program that ends with this process, and waits until it answers. @throws Error with what it printed, when it ends or does not answer in time */
export async function start(file: string, args: string[], isReady: () => Promise<boolean>): Promise<ChildProcess> {
  const child = spawn(program('setpriv'), ['--pdeathsig', 'TERM', file, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let printed = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    printed = (printed + text).slice(-4096)
  })
  const deadline = Date.now() + START_TIMEOUT_MS
  while (child.exitCode === null && child.signalCode === null && Date.now() < deadline) {
    if (await isReady()) return child
    await sleep(20)
  }
  await end(child)
  throw new Error(`${file} did not start: ${printed}`)
}

/** SIGTERM, then SIGKILL after a while; resolves when the process is gone. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill('SIGTERM')
  const late = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS)
  await gone
  clearTimeout(late)
}

/** Whether something accepts connections on a socket's path or a loopback port. */
export function answers(at: string | number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = typeof at === 'string' ? connect({ path: at }) : connect({ host: '127.0.0.1', port: at })
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo // listens on an address, not on a path
      server.close(() => resolve(port))
    })
  })
}

function get(port: number, ca: Uint8Array, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, path, ca: Buffer.from(ca), agent: false }, (answer) => {
      answer.resume().once('end', resolve)
    })
    asked.once('error', reject).end()
  })
}
