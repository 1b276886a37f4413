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

test('other names of Docker Hub mean Docker Hub', () => {
  for (const host of ['index.docker.io', 'registry-1.docker.io', 'Index.Docker.IO', 'docker.io']) {
    check(`${host}/debian:12`, { transport: 'docker', host: 'docker.io', repository: 'library/debian', tag: '12' })
    check(`docker://${host}/user/app`, {
      transport: 'docker',
      host: 'docker.io',
      repository: 'user/app',
      tag: 'latest',
    })
  }
  for (const host of ['hub.docker.io', 'index.docker.io:443', 'registry-2.docker.io']) {
    check(`${host}/user/app`, { transport: 'docker', host, repository: 'user/app', tag: 'latest' })
  }
})

test('layout references take folder, tag and digest apart', () => {
  check('oci:/a/b', { transport: 'oci', dir: '/a/b' })
  check('oci:/a/b:tag', { transport: 'oci', dir: '/a/b', tag: 'tag' })
  check('oci:/a:b/c', { transport: 'oci', dir: '/a', tag: 'b/c' })
  check('oci:/a:', { transport: 'oci', dir: '/a' })
  check('oci:./a/b:x', { transport: 'oci', dir: './a/b', tag: 'x' })
  for (const tag of [
    'registry.example.com/team/app:1',
    'registry.example.com:5000/a',
    'a:b:c',
    `app:1@${DIGEST}`,
    'v1+2--3',
  ]) {
    check(`oci:/a/b:${tag}`, { transport: 'oci', dir: '/a/b', tag })
  }
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
    'oci::tag',
    `oci:@${DIGEST}`,
    'oci:/a:b c',
    'oci:/a:/b',
    'oci:/a:b//c',
    'oci:/a:b\n',
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
    'oci:/x:registry.example.com/team/app:1',
    'oci:/x',
    'registry-1.docker.io/library/debian',
  ]) {
    const parsed = parseReference(text)
    expect(parseReference(referenceText(parsed))).toEqual(parsed)
  }
})
