// The check of what decodes and verifies chunks.
import type { CodecTrial } from '../../codec/trial.ts'
import { type DoctorCheck, ok, warning } from './check.ts'

export const codecs: DoctorCheck<{ codecs(): Promise<CodecTrial> }> = {
  name: 'codecs',
  async run({ codecs }) {
    const trial = await codecs()
    if ('noWasm' in trial) {
      return warning(
        `wasm/codecs.wasm cannot be used: ${trial.noWasm}: chunks are decoded and verified by slower means`,
        'Install lazylayer again.',
      )
    }
    if (trial.processor) return ok('WebAssembly; SHA-256: node:crypto, with instructions that the processor has for it')
    const { 'node:crypto': node, WebAssembly: wasm } = trial.mbPerSecond
    const speeds = `${node.toFixed(0)} MB/s, four at once in WebAssembly ${wasm.toFixed(0)} MB/s`
    const used = trial.fastest === 'WebAssembly' ? 'four at once in WebAssembly where it can' : 'node:crypto'
    return ok(`WebAssembly; SHA-256: ${used}; the processor has no instructions for it: node:crypto makes ${speeds}`)
  },
}
