// An image in a registry pulled by containerd's CRI plugin, as kubelet has it pulled, and run by ctr until the program says its line: each time a
// new containerd and a new snapshotter with an empty cache.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Containerd, type ContainerdFlavour, containerdLacks } from '../test/e2e/engines/containerd.ts'
import type { Sample, Subject } from './case.ts'
import type { Served } from './image.ts'
import { BY_EROFS, serveStore } from './product.ts'
import { PY } from './py-image.ts'
import { serveStargzSnapshotter } from './stargz-snapshotter.ts'
import { stargzVersion } from './stargz-store.ts'
import { usageOf } from './usage.ts'

export const STARGZ_GRPC = 'containerd-stargz-grpc'
export const PULLED = 'overlayfs, full pull'
/** Only what is asked for, and what the image wants first. */
export const ALONE = `${BY_EROFS}, --background off`
/** Pull and start, until the line. */
export const READY = 'ready s'

/** Between the moments of bash's clock; the program's output comes through a pipe. */
const SCRIPT = `
begin=$EPOCHREALTIME
"$@" | { IFS= read -r line; printf '%s\\n%s\\n' "$EPOCHREALTIME" "$line"; cat >&2; }
code=\${PIPESTATUS[0]}
printf '%s\\n' "$begin"
exit $code
`

interface Snapshotter {
  pid: number
  stop(): Promise<unknown>
}

export interface SnapshotterKind {
  name: string
  /** What containerd calls it. */
  plugin: string
  version?: () => Promise<string>
  /** @param address of its client's own socket */
  start(image: Served, dir: string, socket: string, address: string): Promise<Snapshotter>
}

export const lazylayerSnapshotter = (name: string, more: readonly string[]): SnapshotterKind => ({
  name,
  plugin: 'lazylayer',
  start: async (_, dir, socket, address) => {
    const at = { dir: join(dir, 'store'), cache: join(dir, 'cache'), run: join(dir, 'run'), rung: 'erofs' as const }
    const flags = ['--containerd', socket, '--containerd-address', address, ...more]
    const store = await serveStore(at, [], flags)
    const { pid } = await store.status()
    return { pid, stop: store.stop }
  },
})

export const stargzSnapshotter: SnapshotterKind = {
  name: STARGZ_GRPC,
  plugin: 'stargz',
  version: stargzVersion,
  start: serveStargzSnapshotter,
}

/** Those that are compared. @param work a WorkDirectory's path */
export function byContainerd(work: string, image: Served): Subject[] {
  return [
    { name: PULLED, open: async () => () => start(work, image, undefined) },
    ...[
      stargzSnapshotter,
      lazylayerSnapshotter(BY_EROFS, []),
      lazylayerSnapshotter(ALONE, ['--background', 'off']),
    ].map((kind): Subject => {
      const { name, version } = kind
      return { name, ...(version === undefined ? {} : { version }), open: async () => () => start(work, image, kind) }
    }),
  ]
}

async function start(work: string, image: Served, kind: SnapshotterKind | undefined): Promise<Sample> {
  const dir = await mkdtemp(join(work, 's'))
  const path = join(dir, 'c')
  await mkdir(path)
  const socket = kind === undefined ? undefined : join(dir, 's.sock')
  const caFile = join(dir, 'registry.crt')
  await writeFile(caFile, image.certificate)
  const host = new URL(image.origin).host
  const named = kind === undefined ? {} : { name: kind.plugin }
  const of = { flavour: flavourHere(), work, socket, trust: [{ host, caFile }], ...named }
  const containerd = await Containerd.prepare(path, of)
  const snapshotter =
    kind === undefined || socket === undefined
      ? undefined
      : await kind.start(image, join(dir, 'agent'), socket, Containerd.addressIn(path))
  try {
    await containerd.start()
    return await measure(containerd, image, kind?.plugin ?? 'overlayfs', snapshotter?.pid)
  } finally {
    await containerd.close()
    await snapshotter?.stop()
    await rm(dir, { recursive: true, force: true })
  }
}

async function measure(
  containerd: Containerd,
  image: Served,
  plugin: string,
  pid: number | undefined,
): Promise<Sample> {
  const reference = `${new URL(image.origin).host}/${image.repository}:${image.tag}`
  const before = { ...image.counters(), cpu: pid === undefined ? 0 : (await usageOf(pid)).cpuSeconds }
  const begin = performance.now()
  const { status, message } = await containerd.pullByCri(reference)
  const pullSeconds = (performance.now() - begin) / 1000
  const pulled = (image.counters().bytesDown - before.bytesDown) / 1e6
  if (status !== 0) throw new Error(`the pull ended with ${status}: ${message}`)
  const started = await run(containerd, reference, plugin, 'first')
  const { requests, bytesDown } = image.counters()
  const usage = pid === undefined ? undefined : await usageOf(pid)
  return {
    'pull s': pullSeconds,
    'pull MB': pulled,
    [READY]: pullSeconds + started,
    requests: requests - before.requests,
    'MB down': (bytesDown - before.bytesDown) / 1e6,
    ...(usage === undefined ? {} : { 'cpu s': usage.cpuSeconds - before.cpu, 'peak MB': usage.peakMb }),
    'again s': await run(containerd, reference, plugin, 'second'),
  }
}

/** @returns seconds until it says its line */
async function run(containerd: Containerd, reference: string, plugin: string, id: string): Promise<number> {
  const address = ['--address', Containerd.addressIn(containerd.path), '--namespace', 'k8s.io']
  const words = ['ctr', ...address, 'run', '--rm', '--net-host', '--snapshotter', plugin, reference, id]
  const { code, stdout, stderr } = await containerd.run(['bash', '-c', SCRIPT, 'bash', ...words])
  const [ready, line, begin] = stdout.split('\n')
  if (code !== 0 || line !== PY.says) throw new Error(`ctr run ended with ${code}: ${line}\n${stderr}`)
  return Number(ready) - Number(begin)
}

/** The newest that can be had: LAZYLAYER_TEST_CONTAINERD, or Debian 13's. @throws where there is none */
function flavourHere(): ContainerdFlavour {
  const found = (['built', 'trixie'] as const).find((each) => containerdLacks(each) === undefined)
  if (found === undefined) throw new Error(`no containerd: ${containerdLacks('trixie')}`)
  return found
}
