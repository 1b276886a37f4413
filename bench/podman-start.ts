// `podman run` of an image in a registry, until the program says its line, as Debian 13 has Podman: each time a new storage, and
// what it pulls through.
import { chmod, copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Podman, type PodmanOptions } from '../test/e2e/engines/podman.ts'
import type { Served } from './image.ts'

/** Between the moments of bash's clock; the program's output comes through a pipe. */
const SCRIPT = `
begin=$EPOCHREALTIME
"$@" | { IFS= read -r line; printf '%s\\n%s\\n' "$EPOCHREALTIME" "$line"; cat >&2; }
code=\${PIPESTATUS[0]}
printf '%s\\n%s\\n' "$begin" "$EPOCHREALTIME"
exit $code
`
const START_TIMEOUT_MS = 120_000

export interface Started {
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
export async function helperFor(work: string, root: string): Promise<string> {
  const bin = join(work, 'bin')
  await mkdir(bin, { recursive: true })
  await chmod(work, 0o755)
  await copyFile(join(import.meta.dirname, '../native/lazylayer-auth-helper'), join(bin, 'auth-helper'))
  const helper = join(bin, 'helper')
  await writeFile(helper, `#!/bin/sh\nLAZYLAYER_ROOT=${root} exec ${bin}/auth-helper\n`, { mode: 0o755 })
  return `additional-layer-store-auth-helper = "${helper}"\n`
}
