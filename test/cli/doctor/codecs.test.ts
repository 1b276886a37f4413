import { expect, test } from 'vitest'
import { codecs } from '../../../src/cli/doctor/codecs.ts'
import type { CodecTrial } from '../../../src/codec/trial.ts'
import { summary } from './machine.ts'

const SPEEDS = { 'node:crypto': 330, WebAssembly: 580.4 }

test.each<[string, CodecTrial, string, RegExp]>([
  ['a processor that hashes', { processor: true }, 'ok', /^WebAssembly; SHA-256: node:crypto, with instructions/],
  [
    'one that does not, and faster lanes',
    { processor: false, fastest: 'WebAssembly', mbPerSecond: SPEEDS },
    'ok',
    /SHA-256: four at once in WebAssembly.*330 MB\/s.*580 MB\/s/,
  ],
  [
    'one that does not, and slower lanes',
    { processor: false, fastest: 'node:crypto', mbPerSecond: SPEEDS },
    'ok',
    /SHA-256: node:crypto; the processor has no instructions/,
  ],
  ['no WebAssembly', { noWasm: 'ENOENT' }, 'warning', /ENOENT.*slower.*Install/],
])('%s is said', async (_, trial, state, text) => {
  expect(summary(await codecs.run({ codecs: async () => trial }))).toEqual({ state, text: expect.stringMatching(text) })
})
