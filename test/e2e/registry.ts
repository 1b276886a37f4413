// A fake registry over an OCI layout, with its certificate where `--cert-dir` finds it.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PushedLayout } from '../fake/pushed-layout.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Uploads } from '../fake/uploads.ts'

export interface LayoutRegistry extends FakeRegistry {
  certDir: string
}

export async function serveLayout(layout: string, work: string): Promise<LayoutRegistry> {
  const shelf = new PushedLayout(layout)
  const registry = await startRegistry({ shelf, uploads: new Uploads(shelf) })
  const certDir = join(work, `certs-${registry.host}`)
  await mkdir(certDir)
  await writeFile(join(certDir, 'ca.crt'), registry.cert)
  return Object.assign(registry, { certDir })
}
