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

test.each([
  ['containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+deb13u1+b4', 1, 7, '1.7.24~ds1'],
  ['containerd github.com/containerd/containerd/v2 v2.2.5 75cb2b7193e4e490e9fbdc236c0e811ccaba3376', 2, 2, '2.2.5'],
  ['containerd github.com/k3s-io/containerd/v2 v2.1.4-k3s1', 2, 1, '2.1.4-k3s1'],
  ['containerd containerd.io v1.7.28 b98a3aace656320842a23f4a392a33f46af97866', 1, 7, '1.7.28'],
  ['v2.4.2', 2, 4, '2.4.2'],
  ['nerdctl version 2.3.5', 2, 3, '2.3.5'],
])('%j says version %i.%i', (printed, major, minor, text) => {
  expect(parseVersion(printed)).toEqual({ major, minor, text })
})
