import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { parseRegistryReference } from '../../src/image/reference.ts'
import { homeOf, parseRegistriesD, readRegistriesD } from '../../src/policy/registries-d.ts'
import { named } from '../../src/policy/signed-identity.ts'

let dir: string

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lazylayer-registries-d-'))
})

afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

const parse = (text: string) => parseRegistriesD(Buffer.from(text), 'a.yaml')
const put = (name: string, text: string) => writeFile(join(dir, name), text)

function refuse(text: string, message: RegExp): void {
  expect(() => parse(text), text).toThrow(
    expect.objectContaining({ code: 'usage', message: expect.stringMatching(message) }),
  )
}

test('each setting is what the most telling namespace says that says anything about it', () => {
  const found = parse(`
default-docker:
  lookaside: https://default.example.com
docker:
  registry.example.com:
    lookaside: https://host.example.com
    lookaside-staging: file:///staging
    use-sigstore-attachments: true
  registry.example.com/a:
    sigstore: https://a.example.com
  registry.example.com/a/b:1:
    use-sigstore-attachments: false
  "*.example.org":
    use-sigstore-attachments: true
`)
  const check = (image: string, lookaside: string | undefined, attachments: boolean) =>
    expect(homeOf(found, named(parseRegistryReference(image))), image).toEqual({ lookaside, attachments })
  check('registry.example.com/x:1', 'https://host.example.com', true)
  check('registry.example.com/a/x:1', 'https://a.example.com', true)
  check('registry.example.com/a/b:1', 'https://a.example.com', false)
  check('registry.example.com/a/b:2', 'https://a.example.com', true)
  check('registry.example.com:5000/a:1', 'https://default.example.com', false)
  check('one.example.org/a:1', 'https://default.example.com', true)
  check('debian', 'https://default.example.com', false)
})

test('where nothing is said, there is no lookaside and nothing is attached', () => {
  for (const text of ['', 'docker:', '# nothing', 'default-docker:', 'docker:\n  registry.example.com:', 'more: 1']) {
    expect(homeOf(parse(text), named(parseRegistryReference('registry.example.com/a'))), text).toEqual({
      lookaside: undefined,
      attachments: false,
    })
  }
})

test('lookaside passes sigstore, its older name, and an empty one says nothing', () => {
  const image = named(parseRegistryReference('registry.example.com/a'))
  const of = (text: string) => homeOf(parse(`default-docker: {${text}}`), image).lookaside
  expect(of('sigstore: "https://old.example.com", lookaside: "https://new.example.com"')).toBe(
    'https://new.example.com',
  )
  expect(of('sigstore: "https://old.example.com", lookaside: ""')).toBe('https://old.example.com')
})

test('what has another type is refused by its name', () => {
  refuse('{', /no YAML/)
  refuse('a: 1\na: 2', /no YAML/)
  refuse('- a', /a.yaml is no mapping/)
  refuse('docker: 1', /docker is no mapping/)
  refuse('docker: {1: {}}', /a namespace is no text/)
  refuse('docker: {a.example.com: 1}', /a.example.com is no mapping/)
  refuse('default-docker: {lookaside: 1}', /lookaside is no text/)
  refuse('default-docker: {use-sigstore-attachments: "true"}', /neither true nor false/)
})

test('a file that grows by its own repetitions is refused', () => {
  const line = (i: number) => `x${i}: &x${i} [${Array.from({ length: 9 }, () => `*x${i - 1}`).join(', ')}]`
  refuse(['x0: &x0 [a]', ...Array.from({ length: 9 }, (_, i) => line(i + 1))].join('\n'), /no YAML/)
})

test('all files of the folder count, and only *.yaml', async () => {
  await put('a.yaml', 'default-docker: {lookaside: "https://a.example.com"}')
  await put('b.yaml', 'docker: {registry.example.com: {lookaside: "https://b.example.com"}}')
  await put('c.yml', 'no: [')
  const found = await readRegistriesD(dir)
  expect(found.byDefault?.lookaside).toBe('https://a.example.com')
  expect([...found.docker.keys()]).toEqual(['registry.example.com'])
})

test('what two files define is refused, as nobody knows which counts', async () => {
  await put('a.yaml', 'default-docker: {}')
  await put('b.yaml', 'default-docker: {}')
  await expect(readRegistriesD(dir)).rejects.toMatchObject({
    code: 'usage',
    message: expect.stringMatching(/default-docker.*another file/),
  })
  await put('a.yaml', 'docker: {a.example.com: {}}')
  await put('b.yaml', 'docker: {a.example.com: {}}')
  await expect(readRegistriesD(dir)).rejects.toMatchObject({
    code: 'usage',
    message: expect.stringMatching(/a.example.com.*another file/),
  })
})

test('a folder that is not there says nothing', async () => {
  await expect(readRegistriesD(join(dir, 'none'))).resolves.toMatchObject({ byDefault: undefined })
})
