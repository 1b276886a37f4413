// Bytes of real writers, where the samples are.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SAMPLES } from '../../format/samples.ts'

export function sampleBootstrap(name: string): Uint8Array[] {
  return SAMPLES === undefined ? [] : [new Uint8Array(readFileSync(join(SAMPLES, 'samples/rafs', name, 'bootstrap')))]
}
