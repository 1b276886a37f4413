import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parse } from 'smol-toml'
import { expect, test } from 'vitest'
import { billOfMaterials } from '../../packaging/sbom.ts'

const read = (path: string) => readFile(fileURLToPath(new URL(`../../${path}`, import.meta.url)), 'utf8')
const { dependencies, optionalDependencies } = JSON.parse(await read('package.json'))
const npm = Object.keys({ ...dependencies, ...optionalDependencies })
const tables = [parse(await read('native/Cargo.toml')), parse(await read('wasm/Cargo.toml'))]
const crates = tables.flatMap(({ dependencies }) => Object.keys(dependencies as object))

const { components } = billOfMaterials() as {
  components: { name: string; purl: string; hashes: { content: string }[] }[]
}

test('the bill of materials has all that the package is made of, each with its digest', () => {
  const names = components.map(({ name }) => name)
  expect(names).toEqual(expect.arrayContaining([...npm, ...crates]))
  expect(names).not.toContain('vitest')
  for (const { purl, hashes } of components) {
    expect(purl).toMatch(/^pkg:(npm|cargo)\/.+@\d/)
    expect(hashes[0]?.content, purl).toMatch(/^[0-9a-f]{64,128}$/)
  }
  expect(new Set(components.map(({ purl }) => purl)).size).toBe(components.length)
})

test('docs/dependencies.md says of each dependency what it is for', async () => {
  const page = await read('docs/dependencies.md')
  const listed = [...page.matchAll(/^\| `([^`]+)`/gm)].map(([, name]) => name)
  expect(listed.sort()).toEqual([...new Set([...npm, ...crates])].sort())
})
