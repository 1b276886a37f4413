import { describe, expect, test } from 'vitest'
import { scanTar } from '../../../src/format/tar/scan.ts'
import { PIECE_BYTES } from '../../../src/format/tar/tar-index.ts'
import { archive, assemble, GNU, header, inPieces, member, pax, scan } from './tar-craft.ts'

const base64 = (...parts: Uint8Array[]) => Buffer.concat(parts).toString('base64')

describe('the records of a tar', () => {
  test('are what Podman 5.4.2 writes', async () => {
    const [a, b, d] = [header({ name: './a', size: 3 }), header({ name: 'b<&>"\\\u2028\u007f\t\u0001', size: 0 }), header({ name: 'd/', type: '5' })] // biome-ignore format: short
    const tar = Buffer.concat([a, Buffer.from('abc'), new Uint8Array(509), b, d, new Uint8Array(10240)])
    const { lines } = await scan(tar)
    expect(lines).toEqual([
      `{"type":2,"payload":"${base64(a)}","position":0}`,
      '{"type":1,"name":"./a","size":3,"payload":"N3bEIAAAAAA=","position":1}',
      `{"type":2,"payload":"${base64(new Uint8Array(509), b)}","position":2}`,
      '{"type":1,"name":"b\\u003c\\u0026\\u003e\\"\\\\\\u2028\u007f\\t\\u0001","payload":null,"position":3}',
      `{"type":2,"payload":"${base64(d)}","position":4}`,
      '{"type":1,"name":"d/","payload":null,"position":5}',
      `{"type":2,"payload":"${base64(new Uint8Array(1024))}","position":6}`,
      `{"type":2,"payload":"${base64(new Uint8Array(10240 - 1024))}","position":7}`,
    ])
  })

  test('put it together again, what lies between and behind the files included', async () => {
    const large = Buffer.alloc(PIECE_BYTES + 5, 'large')
    const tar = Buffer.concat([
      pax([['comment', 'x']], { type: 'g', name: 'g' }),
      member({ name: 'small' }, 'abc'),
      pax([['path', 'ü']]),
      member({}, large),
      member({ type: 'L', magic: GNU }, `${'l'.repeat(200)}\0`),
      // what fills a block need not be zeros
      Buffer.from(member({ name: 'l', magic: GNU }, 'long')).fill('x', 516),
      archive(),
      new Uint8Array(3_000_000),
    ])
    const { lines } = await scan(tar, 100_000)
    const files = new Map<string, Uint8Array>([
      ['small', Buffer.from('abc')],
      ['ü', large],
      ['l'.repeat(200), Buffer.from('long')],
    ])
    expect(
      Buffer.compare(
        assemble(lines, (name) => files.get(name) as Uint8Array),
        tar,
      ),
    ).toBe(0)
    expect(lines.filter((line) => line.startsWith('{"type":1')).map((line) => JSON.parse(line).name)).toEqual([
      'g',
      ...files.keys(),
    ])
  })

  test('come a few at a time', async () => {
    const tar = archive(...Array.from({ length: 1000 }, (_, i) => header({ name: `${i}` })))
    const sizes: number[] = []
    await scanTar(inPieces(tar, 5000), { split: (lines) => void sizes.push(lines.length) })
    expect(sizes.length).toBeGreaterThan(5)
    expect(Math.max(...sizes)).toBeLessThan(100_000)
  })
})
