// Programs that read a mount and know what it should say (test/fixtures/verifying-reader.py).
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export const READER = fileURLToPath(new URL('../fixtures/verifying-reader.py', import.meta.url))

export interface Verified {
  reads: number
  wrong: number
  errors: string[]
  longestMs: number
}

export interface VerifyingReader {
  /** Of the process. */
  readonly pid: number
  /** Resolves when it has read some more. */
  more(): Promise<void>
  /** The same; how long reads took until now does not count. */
  warm(): Promise<void>
  /** Ends it. @returns what it found */
  end(): Promise<Verified>
}

/** Reading when this resolves. @param also files whose pages are given back, so that what is read of `at` comes from the agent */
export function verifyingReader(at: string, plain: string, also: readonly string[] = []): Promise<VerifyingReader> {
  return readerOf(['python3', READER, at, plain, ...also])
}

/** One that this command line starts, in a container say. */
export async function readerOf([program = '', ...args]: readonly string[]): Promise<VerifyingReader> {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = new Promise<number | string>((done) => child.once('exit', (code, signal) => done(code ?? signal ?? '')))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const { value: first } = await lines.next()
  if (first !== 'reading') throw new Error(`${[program, ...args].join(' ')} does not read: ${first}`)
  const ask = async (line: string) => {
    child.stdin.write(`${line}\n`)
    const { done } = await lines.next()
    if (done) throw new Error(`${[program, ...args].join(' ')} has ended with ${await ended}`)
  }
  return {
    pid: child.pid as number, // it said something
    more: () => ask(''),
    warm: () => ask('warm'),
    async end() {
      child.stdin.end()
      const { value } = await lines.next()
      return JSON.parse(value ?? '{}') as Verified // as it prints it
    },
  }
}
