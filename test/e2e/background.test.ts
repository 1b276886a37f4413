// The rest of an image, fetched in the background: a program reads one file, and a while later nobody is needed for any other.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { lacking } from './engines/needs.ts'
import { suite } from './engines/suite.ts'
import { type Stage, setStage } from './stage.ts'

suite('an image that a program has begun to read', lacking(['fusermount3', 'mount']), () => {
  let stage: Stage

  beforeEach(async () => {
    stage = await setStage()
  })
  afterEach(() => stage.close())

  test('is soon here as a whole, and mounted without the agent', async () => {
    const { root, reference, image } = stage
    const agent = await stage.serve('cache', '--mount', 'erofs', '--background', 'idle')
    const name = Buffer.from(reference).toString('base64')
    const [base = '', middle = ''] = image.layers.map(({ annotations }) =>
      join(root, 'layers', name, annotations[TOC_DIGEST] ?? '', 'diff'),
    )
    expect(await readFile(join(middle, '../info'), 'utf8')).toContain('{') // as engines do before they take a layer
    expect(await readFile(join(base, '../info'), 'utf8')).toContain('{')
    expect((await agent.status()).counters.background_bytes).toBe(0)
    expect(await readFile(join(base, 'program'), 'utf8')).toBe('base\n')
    const kinds = async () => (await agent.status()).mounts.flatMap(({ dir, kind }) => (dir === root ? [] : [kind]))
    await expect.poll(kinds).toEqual(['complete', 'complete'])
    expect((await agent.status()).counters.background_left).toBe(0)
    await stage.registry.close()
    expect(await readFile(join(middle, 'opaque/new'), 'utf8')).toBe('middle\n')
  }, 60_000)
})
