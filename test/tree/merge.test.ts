import { describe, expect, test } from 'vitest'
import { buildTree } from '../../src/tree/build.ts'
import { DEPTH_MAX } from '../../src/tree/entries.ts'
import { writeImage } from '../../src/tree/erofs.ts'
import { ErofsReader } from '../../src/tree/erofs-reader.ts'
import { makeDirectory } from '../../src/tree/inode.ts'
import { mergeImages } from '../../src/tree/merge.ts'
import { fsck, NO_FSCK } from '../fixtures/fsck.ts'
import { dir, fifo, file, fillDevice, layer, link, type Spec, symlink } from './layer.ts'
import { show } from './show.ts'

function merge(...layers: Spec[][]) {
  const built = layers.map((specs) => {
    const source = layer(specs)
    const tree = buildTree(source)
    return { tree, device: fillDevice(tree, source.decoded) }
  })
  return {
    image: mergeImages(built.map(({ tree }) => tree.image)),
    devices: built.map(({ device }) => device),
    trees: built.map(({ tree }) => tree),
  }
}

function check(title: string, layers: Spec[][], expected: string[]) {
  test(title, () => {
    const { image, devices } = merge(...layers)
    expect(show(image, { devices })).toEqual(['/ dir 755 0:0', ...expected])
  })
}

const overlay = new Map([
  ['trusted.overlay.opaque', Buffer.from('y')],
  ['user.a', Buffer.from('1')],
])

describe('layers over each other', () => {
  check('no layers are an empty root', [], [])
  check(
    'a file covers one below, others stay',
    [
      [file('a', 'low'), file('b', 'low')],
      [file('a', 'high'), file('c', 'high')],
    ], // prettier-ignore
    ['a file 644 0:0 "high"', 'b file 644 0:0 "low"', 'c file 644 0:0 "high"'],
  )
  check(
    'a directory is merged and takes the metadata of the upper',
    [
      [dir('d', { uid: 1, xattrs: overlay }), file('d/a')],
      [dir('d', { mode: 0o40700, uid: 2 }), file('d/b')],
    ], // prettier-ignore
    ['d dir 700 2:0', 'd/a file 644 0:0 0', 'd/b file 644 0:0 0'],
  )
  check(
    'a whiteout removes a file and a whole directory',
    [
      [file('a'), file('d/x/y'), file('e')],
      [file('.wh.a'), file('.wh.d'), file('.wh.never')],
    ], // prettier-ignore
    ['e file 644 0:0 0'],
  )
  check(
    'what a whiteout removed may come again, without what was below',
    [[file('d/old')], [file('.wh.d')], [file('d/new')]],
    ['d dir 755 0:0', 'd/new file 644 0:0 0'],
  )
  check(
    'a directory in the layer that removes it is new',
    [[file('d/old')], [file('.wh.d'), file('d/new')]],
    ['d dir 755 0:0', 'd/new file 644 0:0 0'],
  )
  check(
    'an opaque directory hides what is below it, not what is in its own layer',
    [[file('d/old'), file('d/sub/old')], [file('d/.wh..wh..opq'), file('d/new')], [file('d/sub/newer')]],
    ['d dir 755 0:0', 'd/new file 644 0:0 0', 'd/sub dir 755 0:0', 'd/sub/newer file 644 0:0 0'],
  )
  check('an opaque root hides all', [[file('a')], [file('.wh..wh..opq'), file('b')]], ['b file 644 0:0 0'])
  check(
    'a file over a directory and a directory over a file',
    [
      [file('d/x'), file('f', 'x')],
      [file('d', 'file'), file('f/x')],
    ], // prettier-ignore
    ['d file 644 0:0 "file"', 'f dir 755 0:0', 'f/x file 644 0:0 0'],
  )
  check(
    'a directory over a file over a directory does not show the lowest',
    [[file('d/low')], [fifo('d')], [file('d/high')]],
    ['d dir 755 0:0', 'd/high file 644 0:0 0'],
  )
  check(
    'a directory over a symlink is a directory of its own',
    [[dir('usr/lib'), symlink('lib', 'usr/lib')], [file('lib/x')]],
    ['lib dir 755 0:0', 'lib/x file 644 0:0 0', 'usr dir 755 0:0', 'usr/lib dir 755 0:0'],
  )
  check(
    'hard links stay together, also when one name is covered',
    [[file('a', 'x'), link('b', 'a'), link('c', 'a')], [file('b', 'new')]],
    ['a file 644 0:0 "x" (2 links of a)', 'b file 644 0:0 "new"', 'c file 644 0:0 "x" (2 links of a)'],
  )
  check(
    'whiteouts and opaque marks of the lowest layer are not left',
    [
      [
        file('.wh.a'),
        file('d/.wh..wh..opq'),
        dir('d', { xattrs: overlay }),
        { ...fifo('w'), mode: 0o020000, rdev: [0, 0] },
      ],
    ],
    ['d dir 755 0:0 user.a=1'],
  )
  check(
    'devices, symlinks and xattrs are carried over',
    [[{ ...fifo('n'), mode: 0o020666, rdev: [1, 3] }, symlink('s', 't'), file('f', 'x', { xattrs: overlay })], []],
    ['f file 644 0:0 "x" user.a=1', 'n char 666 0:0 1:3', 's symlink 777 0:0 -> t'],
  )
})

test('each layer keeps its device slot, also one of which nothing is left', () => {
  const { image, trees } = merge([file('a', 'x')], [fifo('b')], [file('a', 'y'), file('c', 'z')])
  const reader = new ErofsReader(image)
  expect(reader.devices).toEqual(trees.map((tree) => new ErofsReader(tree.image).devices[0]))
  expect(reader.devices.map(({ blocks }) => blocks)).toEqual([1, 0, 2])
  expect(reader.content(reader.resolve('c') as number)).toEqual({ device: 3, offset: 4096, size: 1 })
})

test('merging one layer without whiteouts gives the same image', () => {
  const { image, trees } = merge([file('a', 'x'), link('b', 'a'), dir('d', { uid: 4 }), symlink('d/s', 't')])
  expect(image).toEqual(trees[0]?.image)
})

test('an image in which a directory contains itself is refused', () => {
  const root = makeDirectory()
  root.children.set('d', makeDirectory())
  const image = writeImage(root, [])
  const reader = new ErofsReader(image)
  const inner = reader.resolve('d') as number
  const view = new DataView(image.buffer)
  // the root's entries lie behind its inode: let `d` be the root again
  for (let at = reader.root * 32 + 64; at < reader.root * 32 + 128; at += 4) {
    if (view.getUint32(at, true) === inner) view.setUint32(at, reader.root, true)
  }
  expect(() => mergeImages([image])).toThrow(
    expect.objectContaining({ why: `it is deeper than ${DEPTH_MAX} directories` }),
  )
})

test.skipIf(NO_FSCK !== undefined)(
  `fsck.erofs accepts a merged image${NO_FSCK ? ` (skipped: ${NO_FSCK})` : ''}`,
  async () => {
    const { image } = merge(
      [file('a', 'x'.repeat(50_000)), link('b', 'a')],
      [file('.wh.b')],
      [file('d/c', 'y'), symlink('s', 't')],
    )
    await fsck(image)
  },
)
