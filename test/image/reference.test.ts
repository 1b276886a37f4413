import { expect, test } from 'vitest'
import { parseReference, type Reference, referenceText } from '../../src/image/reference.ts'

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}` as const

function check(text: string, want: Reference): void {
  expect(parseReference(text), text).toEqual(want)
}

function refuse(text: string): void {
  expect(() => parseReference(text), text).toThrow(expect.objectContaining({ code: 'usage' }))
}

test('registry references take hosts, ports, tags and digests apart', () => {
  const docker = (host: string, repository: string, rest: { tag?: string; digest?: typeof DIGEST }): Reference => ({
    transport: 'docker',
    host,
    repository,
    ...rest,
  })
  check('docker://registry.example.com/a/b:v1', docker('registry.example.com', 'a/b', { tag: 'v1' }))
  check('registry.example.com:5000/a', docker('registry.example.com:5000', 'a', { tag: 'latest' }))
  check('localhost/a:1', docker('localhost', 'a', { tag: '1' }))
  check('REGISTRY.example.com/a', docker('registry.example.com', 'a', { tag: 'latest' }))
  check(`quay.io/a/b@${DIGEST}`, docker('quay.io', 'a/b', { digest: DIGEST }))
  check(`quay.io/a/b:t@${DIGEST}`, docker('quay.io', 'a/b', { tag: 't', digest: DIGEST }))
  check('[::1]:5000/a', docker('[::1]:5000', 'a', { tag: 'latest' }))
  check('127.0.0.1:5000/a__b/c-d.e', docker('127.0.0.1:5000', 'a__b/c-d.e', { tag: 'latest' }))
})

test('plain names mean Docker Hub, single ones its library', () => {
  check('debian', { transport: 'docker', host: 'docker.io', repository: 'library/debian', tag: 'latest' })
  check('debian:12', { transport: 'docker', host: 'docker.io', repository: 'library/debian', tag: '12' })
  check('user/app', { transport: 'docker', host: 'docker.io', repository: 'user/app', tag: 'latest' })
  check('docker.io/debian', { transport: 'docker', host: 'docker.io', repository: 'library/debian', tag: 'latest' })
})

test('layout references take folder, tag and digest apart', () => {
  check('oci:/a/b', { transport: 'oci', dir: '/a/b' })
  check('oci:/a/b:tag', { transport: 'oci', dir: '/a/b', tag: 'tag' })
  check('oci:/a:b/c', { transport: 'oci', dir: '/a:b/c' })
  check('oci:dir:1.0', { transport: 'oci', dir: 'dir', tag: '1.0' })
  check(`oci:/a@${DIGEST}`, { transport: 'oci', dir: '/a', digest: DIGEST })
})

test('malformed references are refused', () => {
  for (const text of [
    '',
    'docker://',
    'registry.example.com/',
    'registry.example.com//a',
    'registry.example.com/A',
    'registry.example.com/../a',
    'registry.example.com/a/../../etc',
    'registry.example.com/a:',
    'registry.example.com/a:-x',
    'registry.example.com/a@sha256:12',
    `registry.example.com/a@${DIGEST}@${DIGEST}`,
    'user:password@registry.example.com/a',
    'registry.example.com:port/a',
    '-x.example.com/a',
    'exa mple.com/a',
    'registry.example.com/a?x=1',
    'registry.example.com/a#x',
    `registry.example.com/${'a/'.repeat(200)}a`,
    `registry.example.com/a:${'t'.repeat(129)}`,
    'registry.example.com/a\0b',
    'https://registry.example.com/a',
    'oci:',
    'oci:/a@sha256:12',
  ]) {
    refuse(text)
  }
})

test('the canonical text of a reference parses to the same reference', () => {
  for (const text of [
    'debian',
    'quay.io/a/b:c',
    `quay.io/a/b:t@${DIGEST}`,
    'oci:/x/y:z',
    `oci:/x@${DIGEST}`,
    'oci:/x',
  ]) {
    const parsed = parseReference(text)
    expect(parseReference(referenceText(parsed))).toEqual(parsed)
  }
})
