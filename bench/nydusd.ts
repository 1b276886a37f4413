// nydusd as nydus-snapshotter starts it for one image: the bootstrap comes from the registry first, then the process mounts it, and
// fetches chunks itself. What containerd and the snapshotter do beside that is left out, to nydusd's favour.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Agent, type Dispatcher, request } from 'undici'
import { parseManifest } from '../src/image/manifest.ts'
import type { Served } from './image.ts'
import { endMount, type Mounted, mountsBelow } from './mount.ts'

const run = promisify(execFile)

export interface NydusdMounting {
  /** The nydusd program. */
  program: string
  image: Served
  /** Where to mount. */
  dir: string
  /** Whatever lies in it; a missing one is made. */
  cache: string
}

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
const READY_TIMEOUT_MS = 30_000
const POLL_MS = 2

/** @throws where it is not set: nobody has it by chance */
export function nydusdProgram(): string {
  const named = process.env.LAZYLAYER_NYDUSD
  if (!named) throw new Error('LAZYLAYER_NYDUSD is not set: a nydusd program with nydus-image beside it')
  return named
}

/** `nydusd VERSION`, as its first line has it: "nydusd Version: <tab> VERSION". */
export async function nydusdVersion(): Promise<string> {
  const { stdout } = await run(nydusdProgram(), ['--version'])
  return `nydusd ${/Version:\s*(\S+)/.exec(stdout)?.[1]}`
}

/** @throws what nydusd says, when it ends before it has mounted */
export async function mountNydusd({ program, image, dir, cache }: NydusdMounting): Promise<Mounted> {
  const started = performance.now()
  for (const each of [dir, cache]) await mkdir(each, { recursive: true })
  const bootstrap = await fetchBootstrap(image, cache)
  const config = join(cache, 'config.json')
  await writeFile(config, JSON.stringify(configuration(image, cache)))
  const words = [
    '--mountpoint',
    dir,
    '--bootstrap',
    bootstrap,
    '--config',
    config,
    '--log-level',
    'error',
    '--rlimit-nofile',
    '0',
  ]
  const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'pipe'] })
  await once(child, 'spawn')
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = text
  })
  while (!(await mountsBelow(dir)).some((each) => each.dir === dir)) {
    if (child.exitCode !== null) throw new Error(`nydusd ended before it had mounted: ${complaint.trim()}`)
    if (performance.now() - started > READY_TIMEOUT_MS) {
      await endMount(child, dir)
      throw new Error('nydusd did not mount')
    }
    await setTimeout(POLL_MS)
  }
  return { readySeconds: (performance.now() - started) / 1000, stop: () => endMount(child, dir) }
}

/** As nydus-snapshotter's own configuration has it, without the prefetch of everything, which lazylayer does not do either. */
function configuration({ origin, repository }: Served, cache: string): unknown {
  const { protocol, host } = new URL(origin)
  return {
    device: {
      backend: {
        type: 'registry',
        config: { scheme: protocol.slice(0, -1), host, repo: repository, skip_verify: true, timeout: 30 },
      },
      cache: { type: 'blobcache', config: { work_dir: join(cache, 'blobs') } },
    },
    mode: 'direct',
    digest_validate: false, // nydusd refuses to check digests of RAFS v6
    enable_xattr: true,
    amplify_io: 1 << 20,
    fs_prefetch: { enable: false },
  }
}

/** The manifest, then the bootstrap layer, unpacked below `cache`. @returns the bootstrap's path */
async function fetchBootstrap({ origin, repository, tag }: Served, cache: string): Promise<string> {
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } })
  const get = async (path: string, accept: string): Promise<Dispatcher.ResponseData['body']> => {
    const { statusCode, body } = await request(`${origin}/v2/${repository}/${path}`, {
      dispatcher,
      headers: { accept },
    })
    if (statusCode !== 200) throw new Error(`${path}: status ${statusCode}`)
    return body
  }
  try {
    const manifest = parseManifest(await (await get(`manifests/${tag}`, MANIFEST)).bytes(), `${repository}:${tag}`)
    const layer = 'layers' in manifest ? manifest.layers.at(-1) : undefined
    if (layer === undefined) throw new Error('the benchmark serves a manifest with layers')
    const targz = join(cache, 'bootstrap.tar.gz')
    await writeFile(targz, await (await get(`blobs/${layer.digest}`, '*/*')).bytes())
    await run('tar', ['-xzf', targz, '-C', cache])
    return join(cache, 'image/image.boot')
  } finally {
    await dispatcher.close()
  }
}
