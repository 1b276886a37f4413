// Programs of the machine that are asked one short question.
import { execFile } from 'node:child_process'

export interface Answered {
  code: number
  stdout: string
  stderr: string
}

/** An engine that waits for a lock, or for a mount that hangs, is not waited for longer. */
const PROGRAM_TIMEOUT_MS = 10_000
const OUTPUT_MAX_BYTES = 1 << 20

/** Undefined where there is no such program, or it did not end in time. Never rejects. */
export function runProgram(program: string, args: readonly string[]): Promise<Answered | undefined> {
  return new Promise((done) => {
    const limits = { timeout: PROGRAM_TIMEOUT_MS, maxBuffer: OUTPUT_MAX_BYTES, killSignal: 'SIGKILL' as const }
    execFile(program, args, { ...limits, env: { ...process.env, LC_ALL: 'C' } }, (error, stdout, stderr) => {
      if (error === null) done({ code: 0, stdout, stderr })
      else done(typeof error.code === 'number' ? { code: error.code, stdout, stderr } : undefined)
    }).stdin?.end()
  })
}
