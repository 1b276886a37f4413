// Layers whose parts end at, before and behind the ends of blocks.
import { dir, fifo, file, link, type Spec, symlink } from './layer.ts'

/** A name of `length` digits. */
export const name = (i: number, length: number) => `${i}`.padStart(length, '0')

export const edges: [string, () => Spec[]][] = [
  ['nothing', () => []],
  ['one of each', () => [dir('d'), file('f', 'x'), file('e'), symlink('s', 't'), fifo('p'), link('l', 'f')]],
  [
    'symlinks that fill a block to the byte',
    () => [3900, 4031, 4032, 4033, 4095].map((n) => symlink(`s${n}`, 't'.repeat(n))),
  ],
  [
    'xattrs that leave no room for a symlink or a chunk index',
    () =>
      [3000, 3900, 3996, 4000, 4004, 4008, 4012, 4016, 4020, 4024, 5000, 65535].flatMap((n) => {
        const xattrs = new Map([['trusted.x', new Uint8Array(n).fill(0x61)]])
        const more = { xattrs }
        return [file(`f${n}`, 'x', more), file(`e${n}`, '', more), symlink(`s${n}`, 'target', more), dir(`d${n}`, more)]
      }),
  ],
  ['255 names of 255 bytes', () => Array.from({ length: 255 }, (_, i) => file(name(i, 255)))],
  ['10,000 short names', () => Array.from({ length: 10_000 }, (_, i) => fifo(`d/${i}`))],
  // 4096 = (12 + 1) + (12 + 2) for . and .., 14 names of 255 bytes, and one of so many that the block is full
  ...[318, 319, 320].map((rest): [string, () => Spec[]] => [
    `a directory of ${4096 - 320 + rest} bytes`,
    () => [
      ...Array.from({ length: 14 }, (_, i) => fifo(`d/${name(i, 255)}`)),
      fifo(`d/${'y'.repeat(149)}`),
      fifo(`d/${'z'.repeat(rest - 12 - 161)}`),
    ],
  ]),
  ['256 levels', () => [file(`${'d/'.repeat(255)}f`, 'deep')]],
  [
    'a directory whose names are all but . and .. before the dot',
    () => ['!', '#', '$', '-', '+a'].map((each) => fifo(each)),
  ],
]
