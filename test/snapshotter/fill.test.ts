// What an image lacks in a content store.
import type { FileHandle } from 'node:fs/promises'
import { expect, test } from 'vitest'
import type { Digest } from '../../src/image/digest.ts'
import { type FillParts, fillImage } from '../../src/snapshotter/fill.ts'
import type { FoundImage } from '../../src/snapshotter/image-finder.ts'
import type { Labels } from '../../src/snapshotter/snapshot.ts'
import { image, lazy } from '../stores/store.ts'

const app = image('app', [lazy('base'), lazy('top'), lazy('base')])
const [base, top] = app.manifest.layers.map(({ digest }) => digest) as [Digest, Digest]
const target = { namespace: 'k8s.io', name: 'registry.example.com/app:1', digest: app.digest }
const SOURCE = { 'containerd.io/distribution.source.registry.example.com': 'app' }
const signal = new AbortController().signal

/** @param there what the store has, with its labels */
function parts(there: Map<Digest, Labels>) {
  const did: string[] = []
  const files = { opened: 0, closed: 0 }
  const all: FillParts = {
    finder: {
      manifestOf: async () => ({ manifest: app.manifest, chain: [], digest: app.digest }),
      open: async () => ({}) as FoundImage, // `resolve` knows it
    },
    contents: { labels: async (_, digest) => there.get(digest) },
    sink: {
      async label(_, digest, labels) {
        did.push(`label ${JSON.stringify(labels)}`)
        there.set(digest, { ...there.get(digest), ...labels })
      },
      async write(namespace, { digest, labels }) {
        did.push(`write ${digest} in ${namespace}`)
        there.set(digest, labels)
      },
    },
    platform: { os: 'linux', architecture: 'amd64' },
    resolve: async () => app,
    async wholeBlob() {
      files.opened++
      return { close: async () => void files.closed++ } as unknown as FileHandle // what is used of it
    },
  }
  return { all, did, files }
}

test('each missing layer is brought once, behind the labels that keep it', async () => {
  const there = new Map<Digest, Labels>([[app.digest, SOURCE]])
  const { all, did, files } = parts(there)
  const bytes = (app.manifest.layers[0]?.size ?? 0) + (app.manifest.layers[1]?.size ?? 0)
  const { namespace, name } = target
  expect(await fillImage(target, all, signal)).toEqual({ namespace, name, layers: 2, written: 2, bytes })
  expect(did[0]).toContain('label ')
  expect(did.slice(1).sort()).toEqual([base, top].map((each) => `write ${each} in k8s.io`).sort())
  expect(Object.values(there.get(app.digest) ?? {})).toEqual(expect.arrayContaining([base, top]))
  expect(there.get(top)).toEqual(SOURCE)
  expect(files).toEqual({ opened: 2, closed: 2 })
})

test('what is there is left as it is', async () => {
  const refers = { 'containerd.io/gc.ref.content.l.0': base, 'containerd.io/gc.ref.content.2': top }
  const { all, did, files } = parts(
    new Map<Digest, Labels>([
      [app.digest, { ...SOURCE, ...refers }],
      [base, {}],
    ]),
  )
  expect(await fillImage(target, all, signal)).toMatchObject({ layers: 2, written: 1 })
  expect(did).toEqual(['label {}', `write ${top} in k8s.io`])
  expect(await fillImage(target, all, signal)).toMatchObject({ written: 0, bytes: 0 })
  expect(files.opened).toBe(1)
})

test('a file is closed, also when it cannot be written', async () => {
  const { all, files } = parts(new Map<Digest, Labels>([[app.digest, SOURCE]]))
  const sink = { ...all.sink, write: () => Promise.reject(new Error('the disk is full')) }
  await expect(fillImage(target, { ...all, sink }, signal)).rejects.toThrow('the disk is full')
  expect(files.closed).toBe(files.opened)
})
