// An image built on a lazy one.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect } from 'vitest'
import type { Podman } from './engines/podman.ts'
import type { DockerRegistry } from './engines/registry.ts'

/** `podman build FROM base`, and a look at what came of it: nothing is asked of the registry, and no layer of the base is copied. */
export async function buildOn(podman: Podman, base: string, registry: DockerRegistry): Promise<void> {
  const context = join(podman.path, 'context')
  await mkdir(context, { recursive: true })
  await writeFile(join(context, 'Containerfile'), `FROM ${base}\nCOPY said /said\n`)
  await writeFile(join(context, 'said'), 'built\n')
  await registry.clear()
  await podman.succeed(['build', '--quiet', '--tag', 'built', context])
  expect(await registry.log()).toEqual([])
  const said = await podman.container('run', ['--rm', '--entrypoint', 'cat', 'built', '/said'])
  expect(said.stdout).toBe('built\n')
  const { stdout } = await podman.exec(['du', '--summarize', '--block-size=1', join(podman.path, 'graph')])
  expect(Number.parseInt(stdout, 10)).toBeLessThan(1_000_000)
}
