// npm run sbom: prints the bill of materials of the package as CycloneDX 1.6: what npm installs with it, the crates of its native part, and
// the C libraries in codecs.wasm. It is made of the lock files alone, so the same commit always gives the same text.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse } from 'smol-toml'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

interface Component {
  type: 'library'
  'bom-ref': string
  name: string
  version: string
  purl: string
  scope?: 'optional'
  hashes: { alg: string; content: string }[]
  licenses?: { expression: string }[]
}

/** package-lock.json, as npm writes it (lockfileVersion 3). */
interface NpmLock {
  packages: Record<
    string,
    { name?: string; version: string; integrity?: string; license?: string; dev?: boolean; optional?: boolean }
  >
}

/** Cargo.lock; a package without a source is our own. */
interface CargoLock {
  package: { name: string; version: string; source?: string; checksum?: string }[]
}

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')
const readCargoLock = (path: string) => parse(read(path)) as unknown as CargoLock // cargo's own

function library(purl: string, name: string, version: string): Omit<Component, 'hashes'> {
  return { type: 'library', 'bom-ref': purl, name, version, purl }
}

function npmComponents(): Component[] {
  const { packages } = JSON.parse(read('package-lock.json')) as NpmLock // npm's own
  return Object.entries(packages).flatMap(([path, { version, integrity, license, dev, optional }]) => {
    if (path === '' || dev) return []
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)
    const purl = `pkg:npm/${name.replace('@', '%40')}@${version}`
    const [, algorithm = '', digest = ''] = /^(sha\d+)-(.*)$/.exec(integrity ?? '') ?? []
    return {
      ...library(purl, name, version),
      ...(optional ? { scope: 'optional' as const } : {}),
      hashes: [{ alg: algorithm.replace('sha', 'SHA-'), content: Buffer.from(digest, 'base64').toString('hex') }],
      ...(license === undefined ? {} : { licenses: [{ expression: license }] }),
    }
  })
}

function crates({ package: all }: CargoLock, isShipped: (name: string) => boolean): Component[] {
  return all.flatMap(({ name, version, source, checksum = '' }) => {
    if (source === undefined || !isShipped(name)) return []
    const purl = `pkg:cargo/${name}@${version}`
    return { ...library(purl, name, version), hashes: [{ alg: 'SHA-256', content: checksum }] }
  })
}

/** Of wasm/ the named crates alone are shipped, for their C sources; no Rust of it is compiled. */
function codecs(): Component[] {
  const { dependencies } = parse(read('wasm/Cargo.toml')) as { dependencies: Record<string, unknown> } // as it is there
  return crates(readCargoLock('wasm/Cargo.lock'), (name) => Object.hasOwn(dependencies, name))
}

export function billOfMaterials(): object {
  const { name, version, license } = JSON.parse(read('package.json')) as Record<string, string> // our own
  const own = `pkg:npm/${name}@${version}`
  const components = [...npmComponents(), ...crates(readCargoLock('native/Cargo.lock'), () => true), ...codecs()]
  const byRef = new Map(components.map((each) => [each['bom-ref'], each]))
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: {
      component: { type: 'application', 'bom-ref': own, name, version, purl: own, licenses: [{ expression: license }] },
    },
    components: [...byRef.values()].sort((a, b) => (a['bom-ref'] < b['bom-ref'] ? -1 : 1)),
  }
}

if (import.meta.main) process.stdout.write(`${JSON.stringify(billOfMaterials(), undefined, 2)}\n`)
