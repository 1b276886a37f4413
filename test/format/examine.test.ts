import { fstatSync } from 'node:fs'
import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { expect, onTestFinished, test } from 'vitest'
import { examine } from '../../src/format/examine.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import { folder } from '../store/folder.ts'
import { archive, header, LAYER } from './tar/tar-craft.ts'

/** No compressor makes it much shorter. */
const name = (i: number) => hex(digestOf(new TextEncoder().encode(`${i}`)))
const files = (count: number) => Array.from({ length: count }, (_, i) => header({ name: name(i) }))

test('an examination that fails writes nothing any more', async () => {
  const dir = await folder()
  for (let count = 200; count <= 300; count += 10) {
    // a file below a file: what fails is the tree, when the compressor of the split file was just given the last lines
    const blob = archive(...files(count), header({ name: `${name(0)}/below` }))
    await writeFile(join(dir, 'blob'), blob)
    const opened = [
      await open(join(dir, 'blob')),
      await open(join(dir, 'tar'), 'w+'),
      await open(join(dir, 'split'), 'w+'),
    ]
    onTestFinished(async () => void (await Promise.all(opened.map((each) => each.close()))))
    const [blobFd, tarFd, splitFd] = opened.map(({ fd }) => fd) as [number, number, number]
    const task = { layer: LAYER.shown, blobFd, tarFd, splitFd, tarMaxBytes: 2 ** 30, served: undefined }
    await expect(examine(task)).rejects.toMatchObject({ code: 'corrupt' })
    const { size } = fstatSync(splitFd)
    // what a compressor was given before comes before what it is given now
    for (let i = 0; i < 10; i++) await promisify(gzip)(blob)
    expect(fstatSync(splitFd).size).toBe(size)
  }
})
