// Which repositories a pattern of --trust names.
import { expect, test } from 'vitest'
import { describe } from '../../src/errors.ts'
import { parseRegistryReference } from '../../src/image/reference.ts'
import { isTrusted, parseTrustPattern } from '../../src/stores/trusted-names.ts'

test.each([
  ['registry.example.com/team/*', 'registry.example.com/team/app:1', true],
  ['registry.example.com/team/*', `registry.example.com/team/app@sha256:${'a'.repeat(64)}`, true],
  ['registry.example.com/team/*', 'registry.example.com/team/app/part', false],
  ['registry.example.com/team/*', 'registry.example.com/team', false],
  ['registry.example.com/team/*', 'registry.example.com/team-b/app', false],
  ['registry.example.com/team/*', 'registry.example.com/a/team/app', false],
  ['registry.example.com/team/*', 'registry.example.com:5000/team/app', false],
  ['registry.example.com/team/*', 'evil.registry.example.com/team/app', false],
  ['registry.example.com/*/app', 'registry.example.com/team/app', true],
  ['registry.example.com/*/app', 'registry.example.com/team/other', false],
  ['registry.example.com/*/*', 'registry.example.com/a/b', true],
  ['registry.example.com/*/*', 'registry.example.com/a', false],
  ['registry.example.com/team/app', 'registry.example.com/team/app', true],
  ['Registry.Example.COM/team/app', 'registry.example.com/team/app', true],
  ['registry.example.com:5000/team/*', 'registry.example.com:5000/team/app', true],
  // names of Docker's hub, as engines complete them
  ['docker.io/*', 'debian', true],
  ['docker.io/*', 'team/app', false],
  ['docker.io/team/*', 'index.docker.io/team/app', true],
  ['index.docker.io/library/*', 'docker.io/debian', true],
  ['team/*', 'docker.io/team/app', true],
])('%s: %s, %s', (pattern, reference, expected) => {
  expect(isTrusted(parseRegistryReference(reference), parseTrustPattern(pattern))).toBe(expected)
})

test.each([
  ['registry.example.com', 'it has no repository'],
  ['*', 'it has no repository'],
  ['*/team/app', 'its host is not spelled out'],
  ['*.example.com/team/app', 'its host is not spelled out'],
  ['registry.example.com/team-*', 'stands for a whole component'],
  ['registry.example.com/**', 'stands for a whole component'],
  ['registry.example.com/team/app:1', 'it has a tag or a digest'],
  [`registry.example.com/team/app@sha256:${'a'.repeat(64)}`, 'it has a tag or a digest'],
  ['registry.example.com/', 'is malformed'],
  ['registry.example.com//app', 'is malformed'],
  ['registry.example.com/Team/*', 'is malformed'],
  ['docker://registry.example.com/team/*', ''],
  ['oci:/images/*', ''],
])('%s names no repositories: %s', (pattern, why) => {
  const refused = () => {
    try {
      parseTrustPattern(pattern)
    } catch (error) {
      return describe(error)
    }
    return undefined
  }
  expect(refused()).toContain(why)
})
