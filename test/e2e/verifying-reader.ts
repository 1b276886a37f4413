// Programs that read a mount and know what it should say (test/fixtures/verifying-reader.py).
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const READER = fileURLToPath(new URL('../fixtures/verifying-reader.py', import.meta.url))

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
  /** Ends it. @returns what it found */
  end(): Promise<Verified>
}

/** Reading when this resolves. @param also files whose pages are given back, so that what is read of `at` comes from the agent */
export async function verifyingReader(
  at: string,
  plain: string,
  also: readonly string[] = [],
): Promise<VerifyingReader> {
  const child = spawn('python3', [READER, at, plain, ...also], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  await lines.next()
  return {
    pid: child.pid as number, // it said something
    async more() {
      child.stdin.write('\n')
      await lines.next()
    },
    async end() {
      child.stdin.end()
      const { value } = await lines.next()
      return JSON.parse(value ?? '{}') as Verified // as it prints it
    },
  }
}
