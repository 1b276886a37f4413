// A fake registry over an OCI layout, with its certificate where `--cert-dir` finds it.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { layoutShelf } from '../../src/build/registry.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'

export interface LayoutRegistry extends FakeRegistry {
  certDir: string
}

export async function serveLayout(layout: string, work: string): Promise<LayoutRegistry> {
  const registry = await startRegistry({ shelf: layoutShelf(layout) })
  const certDir = join(work, `certs-${registry.host}`)
  await mkdir(certDir)
  await writeFile(join(certDir, 'ca.crt'), registry.cert)
  return Object.assign(registry, { certDir })
}
