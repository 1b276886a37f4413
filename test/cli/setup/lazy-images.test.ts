import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { hasLazyImages } from '../../../src/cli/setup/lazy-images.ts'
import { folder } from '../../store/folder.ts'

const ID = 'a'.repeat(64)

/** An engine's storage, and what the store of ROOT lists; `mounted`: an agent serves it. */
async function machine({ listed, mounted, image }: { listed: string[]; mounted: boolean; image?: string }) {
  const dir = await folder()
  const graph = join(dir, 'graph')
  for (const each of ['overlay/l', 'overlay-layers', 'overlay-images', 'overlay-containers']) {
    await mkdir(join(graph, each), { recursive: true })
  }
  await writeFile(join(graph, 'overlay-layers/layers.json'), '[]')
  const images = image === undefined ? [] : [{ id: 'b'.repeat(64), layer: image }]
  await writeFile(join(graph, 'overlay-images/images.json'), JSON.stringify(images))
  const layers = JSON.stringify(listed.map((id) => ({ id })))
  const read = async (path: string) => {
    if (path === '/proc/self/mountinfo') return mounted ? '1 2 0:3 / /root rw - fuse.lazylayer lazylayer rw\n' : ''
    if (path === '/root/images/overlay-layers/layers.json') return layers
    throw new Error(`${path} is not asked for`)
  }
  return { graph, has: () => hasLazyImages('/root', [{ dir: graph }], { read }) }
}

test.each([
  ['an agent lists nothing', { listed: [], mounted: true }, false],
  ['no agent runs, so what was listed is not known', { listed: [], mounted: false }, true],
  ['what is listed is no image of any engine', { listed: [ID], mounted: true }, false],
  ['what is listed is the top of an image', { listed: [ID], mounted: true, image: ID }, true],
  ['the image of an engine is none of ours', { listed: [ID], mounted: true, image: 'c'.repeat(64) }, false],
])('%s', async (_, of, expected) => {
  const { has } = await machine(of)
  expect(await has()).toBe(expected)
})

test('a layer of the layer store is a link into it', async () => {
  const { graph, has } = await machine({ listed: [], mounted: true })
  await mkdir(join(graph, 'overlay', ID))
  await symlink('/elsewhere/diff', join(graph, 'overlay', ID, 'diff'))
  expect(await has()).toBe(false)
  await mkdir(join(graph, 'overlay', 'd'.repeat(64)))
  await symlink('/root/layers/ref/digest/diff', join(graph, 'overlay', 'd'.repeat(64), 'diff'))
  expect(await has()).toBe(true)
})
