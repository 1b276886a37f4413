// Of which engines the agent is told what they pull, before they look for layers.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { untoldHere, whyUntold } from '../../src/cli/told.ts'
import { type FoundEngine, foundEngine } from '../../src/engines/versions.ts'
import type { Places } from '../../src/registry/places.ts'
import { folder } from '../store/folder.ts'

const HELPER = '/usr/bin/lazylayer-auth-helper'
const found = (engine: FoundEngine['engine'], version: string) =>
  foundEngine(engine, `${engine} version ${version}`) as FoundEngine // it is one
const stores = {
  none: { layers: false, images: false },
  images: { layers: false, images: true },
  layers: { layers: true, images: false },
  both: { layers: true, images: true },
}

test.each([
  // up to 5.0 the layer store tells
  ['podman', '4.3.1', 'layers', HELPER, undefined],
  ['podman', '4.3.1', 'both', undefined, undefined],
  ['podman', '5.0.3', 'images', HELPER, 'podman 5.0.3 runs no auth helper, and reads the image store alone'],
  ['crio', '1.30.2', 'images', HELPER, 'crio 1.30.2 runs no auth helper, and reads the image store alone'],
  // 5.1 exactly: nothing tells
  [
    'podman',
    '5.1.2',
    'both',
    HELPER,
    'podman 5.1.2 runs no auth helper, and asks the layer store for what has an index alone',
  ],
  ['podman', '5.1.2', 'images', HELPER, 'podman 5.1.2 runs no auth helper'],
  ['buildah', '1.36.0', 'layers', HELPER, 'buildah 1.36.0 runs no auth helper'],
  // later the helper does, if it is named
  ['podman', '5.2.0', 'images', HELPER, undefined],
  ['podman', '5.4.2', 'both', '/opt/lazylayer-auth-helper', undefined],
  ['podman', '5.8.6', 'images', undefined, 'the auth helper that registries.conf names, which is none'],
  ['podman', '5.8.6', 'images', '/usr/bin/another', 'which is /usr/bin/another'],
  ['crio', '1.31.0', 'images', HELPER, undefined],
  // who looks into no store of ours finds nothing there
  ['podman', '5.1.2', 'none', undefined, undefined],
] as const)('%s %s with %s of our stores and %s: %s', (engine, version, named, helper, why) => {
  const told = whyUntold(found(engine, version), stores[named], helper)
  if (why === undefined) expect(told).toBeUndefined()
  else expect(told).toContain(why)
})

test('what engines here look into is read from their settings', async () => {
  const etc = await folder()
  const root = '/srv/store'
  const places: Places = { home: join(etc, 'home'), etc, env: {}, uid: 0 } as Places // what is used of them
  const here = {
    found: [found('podman', '5.8.6'), found('crio', '1.34.0')],
    silent: [{ engine: 'skopeo' as const, why: 'it does not start' }],
  }
  const put = async (path: string, text: string) => {
    await mkdir(join(etc, path, '..'), { recursive: true })
    await writeFile(join(etc, path), text)
  }
  await put('containers/storage.conf', '[storage]\ndriver = "overlay"\n')
  expect(await untoldHere(root, places, here)).toEqual([])
  await put(
    'containers/storage.conf',
    `[storage]\ndriver = "overlay"\n[storage.options]\nadditionalimagestores = ["${root}/images"]\n`,
  )
  expect(await untoldHere(root, places, here)).toEqual([
    expect.stringContaining('podman 5.8.6 runs the auth helper'),
    expect.stringContaining('crio 1.34.0 runs the auth helper'),
    'skopeo does not say its version (it does not start)',
  ])
  expect(await untoldHere('/srv/another', places, here)).toEqual([])
  await put('containers/registries.conf.d/50-lazylayer.conf', `additional-layer-store-auth-helper = "${HELPER}"\n`)
  expect(await untoldHere(root, places, { ...here, silent: [] })).toEqual([])
  await put('containers/storage.conf', 'no TOML')
  await expect(untoldHere(root, places, here)).rejects.toMatchObject({ code: 'usage' })
})
