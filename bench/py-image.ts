// A real image: a Python program with its packages, in two eStargz layers that a tool of this field has optimized by a recorded run
// (images/py-esgz below LAZYLAYER_SAMPLES); and the same files as a writer leaves them whom nobody told what a start needs.
import { execFile } from 'node:child_process'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { folderEntries } from '../src/build/folder.ts'
import { writeImage } from '../src/build/layout-writer.ts'
import { layoutShelf } from '../src/build/registry.ts'
import { hex } from '../src/image/digest.ts'
import { parseManifest } from '../src/image/manifest.ts'

const run = promisify(execFile)

export const PY = { tag: 'py', says: 'hello from flask' } as const

/** The OCI layout. @throws where there is none */
export function pyLayout(): string {
  const samples = process.env.LAZYLAYER_SAMPLES
  if (!samples) throw new Error('LAZYLAYER_SAMPLES is not set: the directory that has images/py-esgz')
  return join(samples, 'images/py-esgz')
}

/** What eStargz adds to the files of a layer. */
const ADDED = ['.prefetch.landmark', '.no.prefetch.landmark', 'stargz.index.json']

/** Writes the image with landmarks that say that nothing is wanted first. @param dir for the layout @param kind of its layers */
export async function writePlainPy(dir: string, kind: 'estargz' | 'gzip'): Promise<void> {
  const from = pyLayout()
  const blob = (digest: string) => join(from, 'blobs/sha256', hex(digest as `sha256:${string}`))
  const found = await layoutShelf(from).manifest('', PY.tag)
  if (found === undefined) throw new Error(`${from} has no image tagged ${PY.tag}`)
  const manifest = parseManifest(await readFile(blob(found.digest)), PY.tag)
  if (!('layers' in manifest)) throw new Error(`${from} has a plain manifest`)
  const { config } = JSON.parse(await readFile(blob(manifest.config.digest), 'utf8'))
  const folders: string[] = []
  for (const [i, { digest }] of manifest.layers.entries()) {
    const folder = `${dir}-layer-${i}`
    await mkdir(folder, { recursive: true })
    await run('tar', ['-xzf', blob(digest), '-C', folder, ...ADDED.map((name) => `--exclude=${name}`)])
    folders.push(folder)
  }
  const layers = folders.map((folder) => ({ kind, entries: folderEntries(folder) }))
  await writeImage({ dir, tag: PY.tag, layers, config })
  for (const folder of folders) await rm(folder, { recursive: true })
}
