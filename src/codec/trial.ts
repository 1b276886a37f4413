// What codec workers use on this machine, found out as they do, for who wants to say it.
import { describe } from '../errors.ts'
import { Instance } from './instance.ts'
import { processorHashes, Sha256 } from './sha256.ts'
import { CODECS_WASM, loadCodecs } from './wasm.ts'

/** Why WebAssembly is not used, or what SHA-256 is made by. */
export type CodecTrial =
  | { readonly noWasm: string }
  | { readonly processor: true }
  | ({ readonly processor: false } & ReturnType<Sha256['speeds']>)

// Long enough for WebAssembly to be compiled as well as it gets.
const TRIED_MS = 100
// The files of a layer are mostly so small.
const PIECE_BYTES = 16 * 1024

export async function tryCodecs(module: URL = CODECS_WASM, processor = processorHashes()): Promise<CodecTrial> {
  let instance: Instance
  try {
    instance = new Instance(await loadCodecs(module))
  } catch (error) {
    return { noWasm: describe(error) }
  }
  if (processor) return { processor }
  const sha256 = new Sha256((four) => instance.sha256(four))
  const four = Array.from({ length: 4 }, () => new Uint8Array(PIECE_BYTES))
  for (const end = performance.now() + TRIED_MS; performance.now() < end; ) sha256.digests(four)
  return { processor, ...sha256.speeds() }
}
