// A real image: a Python program with its packages, in two eStargz layers that a tool of this field has optimized by a recorded run
// (images/py-esgz below LAZYLAYER_SAMPLES); and the same files as a writer leaves them whom nobody told what a start needs.
import { execFile } from 'node:child_process'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { folderEntries } from '../src/build/folder.ts'
import { writeImage } from '../src/build/layout-writer.ts'
import { layoutShelf } from '../src/build/registry.ts'
import { type Digest, hex } from '../src/image/digest.ts'
import { parseManifest } from '../src/image/manifest.ts'

const run = promisify(execFile)

export const PY = { tag: 'py', says: 'hello from flask' } as const

/** The OCI layout. @throws where there is none */
export function pyLayout(): string {
  const samples = process.env.LAZYLAYER_SAMPLES
  if (!samples) throw new Error('LAZYLAYER_SAMPLES is not set: the directory that has images/py-esgz')
  return join(samples, 'images/py-esgz')
}

/** Bytes of its blobs that the image says are wanted first: what lies before the landmarks. */
export async function pyPrioritizedBytes(): Promise<number> {
  let bytes = 0
  for (const digest of (await pyManifest()).layers) {
    const { stdout } = await run('tar', ['-xzOf', pyBlob(digest), TOC], { maxBuffer: TOC_MAX_BYTES })
    const toc = JSON.parse(stdout) as { entries: { name: string; offset?: number }[] }
    bytes += toc.entries.find(({ name }) => name === LANDMARK)?.offset ?? 0
  }
  return bytes
}

/** What eStargz adds to the files of a layer. */
const LANDMARK = '.prefetch.landmark'
const TOC = 'stargz.index.json'
const ADDED = [LANDMARK, '.no.prefetch.landmark', TOC]
const TOC_MAX_BYTES = 64 << 20

/** Writes the image with landmarks that say that nothing is wanted first. @param dir for the layout @param kind of its layers */
export async function writePlainPy(dir: string, kind: 'estargz' | 'gzip'): Promise<void> {
  const { config, layers: digests } = await pyManifest()
  const folders: string[] = []
  for (const [i, digest] of digests.entries()) {
    const folder = `${dir}-layer-${i}`
    await mkdir(folder, { recursive: true })
    await run('tar', ['-xzf', pyBlob(digest), '-C', folder, ...ADDED.map((name) => `--exclude=${name}`)])
    folders.push(folder)
  }
  const layers = folders.map((folder) => ({ kind, entries: folderEntries(folder) }))
  await writeImage({ dir, tag: PY.tag, layers, config })
  for (const folder of folders) await rm(folder, { recursive: true })
}

const pyBlob = (digest: Digest) => join(pyLayout(), 'blobs/sha256', hex(digest))

/** The image's command and environment, and its layers. */
async function pyManifest(): Promise<{ config: Record<string, unknown>; layers: Digest[] }> {
  const found = await layoutShelf(pyLayout()).manifest('', PY.tag)
  if (found === undefined) throw new Error(`${pyLayout()} has no image tagged ${PY.tag}`)
  const manifest = parseManifest(await readFile(pyBlob(found.digest)), PY.tag)
  if (!('layers' in manifest)) throw new Error(`${pyLayout()} has a plain manifest`)
  const { config } = JSON.parse(await readFile(pyBlob(manifest.config.digest), 'utf8'))
  return { config, layers: manifest.layers.map(({ digest }) => digest) }
}
