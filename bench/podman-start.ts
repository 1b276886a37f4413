// `podman run` of an image in a registry, until the program says its line, as Debian 13 has Podman: each time a new storage, and
// what it pulls through.
import { chmod, copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Podman, type PodmanOptions } from '../test/e2e/engines/podman.ts'
import { type Agent, lazylayerAgent, stargzAgent, withAgent } from './agents.ts'
import type { Sample, Subject } from './case.ts'
import type { Served } from './image.ts'
import { PY } from './py-image.ts'
import { usageOf } from './usage.ts'

/** Between the moments of bash's clock; the program's output comes through a pipe. */
const SCRIPT = `
begin=$EPOCHREALTIME
"$@" | { IFS= read -r line; printf '%s\\n%s\\n' "$EPOCHREALTIME" "$line"; cat >&2; }
code=\${PIPESTATUS[0]}
printf '%s\\n%s\\n' "$begin" "$EPOCHREALTIME"
exit $code
`
export const READY = 'ready s'
/** A second start, with the link cut. */
export const AGAIN = 'again s'

const START_TIMEOUT_MS = 120_000

interface Started {
  readySeconds: number
  exitSeconds: number
}

export type Stores = Pick<PodmanOptions, 'additionalLayerStores' | 'additionalImageStores' | 'registriesConf'>

/** A Podman with nothing in its storage that trusts the registry. @param work a WorkDirectory's path */
export async function freshPodman(work: string, image: Served, stores: Stores): Promise<Podman> {
  const trusted = await mkdtemp(join(work, 'trust-'))
  const caFile = join(trusted, 'ca.crt')
  await writeFile(caFile, image.certificate)
  try {
    const trust = [{ host: new URL(image.origin).host, caFile }]
    return await Podman.start({ flavour: 'trixie', work, trust, ...stores })
  } finally {
    await rm(trusted, { recursive: true })
  }
}

/** @param says the one line that the image's program prints */
export async function startByPodman(
  podman: Podman,
  { origin, repository, tag }: Served,
  says: string,
): Promise<Started> {
  const name = `${new URL(origin).host}/${repository}:${tag}`
  const words = podman.containerWords('run', ['--rm', '--quiet', name])
  const { code, stdout, stderr } = await podman.exec(['bash', '-c', SCRIPT, 'bash', ...words], START_TIMEOUT_MS)
  const [ready, line, begin, end] = stdout.split('\n')
  if (code !== 0 || line !== says) throw new Error(`podman run ended with ${code}: ${line}\n${stderr}`)
  return { readySeconds: Number(ready) - Number(begin), exitSeconds: Number(end) - Number(begin) }
}

/** lazylayer's auth helper for the store at `root`, where a Podman in another root finds it. @returns lines of registries.conf */
async function helperFor(work: string, root: string): Promise<string> {
  const bin = join(work, 'bin')
  await mkdir(bin, { recursive: true })
  await chmod(work, 0o755)
  await copyFile(join(import.meta.dirname, '../native/lazylayer-auth-helper'), join(bin, 'auth-helper'))
  const helper = join(bin, 'helper')
  await writeFile(helper, `#!/bin/sh\nLAZYLAYER_ROOT=${root} exec ${bin}/auth-helper\n`, { mode: 0o755 })
  return `additional-layer-store-auth-helper = "${helper}"\n`
}

/** Podman through stargz-store, which is new each turn. @param work a WorkDirectory's path */
export function stargzByPodman(work: string, image: Served): Subject {
  return through(stargzAgent, work, image, stargzStores(work))
}

/** Podman through lazylayer, which is new each turn, as `lazylayer setup podman` has it. @param work a WorkDirectory's path */
export async function lazylayerByPodman(work: string, image: Served, agent = lazylayerAgent()): Promise<Subject> {
  return through(agent, work, image, await lazylayerStores(work))
}

export const stargzStores = (work: string): Stores => ({ additionalLayerStores: [`${join(work, 'stargz')}:ref`] })

export async function lazylayerStores(work: string): Promise<Stores> {
  const root = join(work, 'store')
  return { additionalImageStores: [join(root, 'images')], registriesConf: await helperFor(work, root) }
}

function through(agent: Agent, work: string, image: Served, stores: Stores): Subject {
  return withAgent(
    agent,
    work,
    async () => image,
    ({ pid }) => byPodman(work, image, stores, pid),
  )
}

/** Two starts of `images/py-esgz`. @param agent process whose use of the machine counts */
export async function byPodman(work: string, image: Served, stores: Stores, agent?: number): Promise<Sample> {
  await using podman = await freshPodman(work, image, stores)
  const before = { ...image.counters(), cpu: agent === undefined ? 0 : (await usageOf(agent)).cpuSeconds }
  const first = await startByPodman(podman, image, PY.says)
  const { requests, bytesDown } = image.counters()
  const usage = agent === undefined ? undefined : await usageOf(agent)
  await image.link.cut()
  try {
    const again = await startByPodman(podman, image, PY.says)
    return {
      [READY]: first.readySeconds,
      'exit s': first.exitSeconds,
      requests: requests - before.requests,
      'MB down': (bytesDown - before.bytesDown) / 1e6,
      ...(usage === undefined ? {} : { 'cpu s': usage.cpuSeconds - before.cpu, 'peak MB': usage.peakMb }),
      [AGAIN]: again.readySeconds,
    }
  } finally {
    await image.link.mend()
  }
}
