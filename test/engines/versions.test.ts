import { expect, test } from 'vitest'
import { callsHelper, type Engine, type Era, foundEngine, parseVersion } from '../../src/engines/versions.ts'

test.each<[Engine, string, Era, boolean]>([
  ['podman', 'podman version 4.3.1', 'layer', false],
  ['podman', 'podman version 5.0.3', 'layer', false],
  ['podman', 'podman version 5.1.0', 'index', false],
  ['podman', 'podman version 5.2.0', 'index', true],
  ['podman', 'podman version 5.4.2', 'index', true],
  ['podman', 'podman version 5.5.0-rc1', 'image', true],
  ['podman', 'podman version 5.8.6', 'image', true],
  ['podman', 'podman version 6.0.0-dev', 'image', true],
  ['crio', 'crio version 1.30.4\nGitCommit: abc', 'layer', false],
  ['crio', 'crio version 1.31.0\n', 'index', true],
  ['crio', 'crio version 1.33.0\n', 'image', true],
  ['buildah', 'buildah version 1.28.2 (image-spec 1.0.2-dev, runtime-spec 1.0.2-dev)', 'layer', false],
  ['buildah', 'buildah version 1.39.3 (image-spec 1.1.0)', 'index', true],
  ['buildah', 'buildah version 1.40.0', 'image', true],
  ['skopeo', 'skopeo version 1.9.3', 'layer', false],
  ['skopeo', 'skopeo version 1.18.0 commit: 1', 'index', true],
  ['skopeo', 'skopeo version 1.19.0', 'image', true],
])('%s that says %j is of era %s', (engine, printed, era, helper) => {
  const found = foundEngine(engine, printed)
  expect(found).toMatchObject({ engine, era })
  expect(found && callsHelper(engine, found.version)).toBe(helper)
})

test.each([[''], ['podman'], ['podman version unknown'], ['version 5']])('%j says no version', (printed) => {
  expect(parseVersion(printed)).toBeUndefined()
})
