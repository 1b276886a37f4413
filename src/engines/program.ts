// Programs of the machine that are asked one short question.
import { type ExecFileException, execFile } from 'node:child_process'

export interface Answered {
  /** Undefined: it could not be run, or did not end by itself. */
  code: number | undefined
  stdout: string
  stderr: string
  /** How it failed, in a clause, with the first line that it said of that; undefined: it ended with 0. */
  why: string | undefined
}

/** An engine that waits for a lock, or for a mount that hangs, is not waited for longer. */
const PROGRAM_TIMEOUT_MS = 10_000
/** One in an uninterruptible wait, for a disk or a mount, is not ended by a signal: it is left behind. */
const KILLED_TIMEOUT_MS = 1_000
const OUTPUT_MAX_BYTES = 1 << 20
/** Of what it said: a line is a line, and some programs print all they have on one. */
const SAID_MAX_LENGTH = 300

/** Undefined where there is no such program. Never rejects. */
export function runProgram(
  program: string,
  args: readonly string[],
  timeoutMs = PROGRAM_TIMEOUT_MS,
): Promise<Answered | undefined> {
  return new Promise<Answered | undefined>((done) => {
    const limits = { timeout: timeoutMs, maxBuffer: OUTPUT_MAX_BYTES, killSignal: 'SIGKILL' as const }
    const child = execFile(
      program,
      args,
      { ...limits, env: { ...process.env, LC_ALL: 'C' } },
      (error, stdout, stderr) => {
        clearTimeout(left)
        if (error === null) done({ code: 0, stdout, stderr, why: undefined })
        else if (typeof error.code === 'number') {
          const said = stderr.trim().split('\n')[0] ?? ''
          const why = `it ended with ${error.code}${said === '' ? '' : `: ${said.slice(0, SAID_MAX_LENGTH)}`}`
          done({ code: error.code, stdout, stderr, why })
        } else if (error.code === 'ENOENT') done(undefined)
        else done({ code: undefined, stdout, stderr, why: whyNot(error, timeoutMs) })
      },
    )
    child.stdin?.end()
    const left = setTimeout(() => {
      child.unref()
      done({
        code: undefined,
        stdout: '',
        stderr: '',
        why: `it did not end within ${timeoutMs} ms, nor when it was killed`,
      })
    }, timeoutMs + KILLED_TIMEOUT_MS)
  }).catch((error: unknown) => {
    // what it cannot tell the callback it throws: arguments or an environment that are too long, no memory
    const said = error instanceof Error ? error.message : String(error)
    return { code: undefined, stdout: '', stderr: '', why: `it cannot be run: ${said.slice(0, SAID_MAX_LENGTH)}` }
  })
}

function whyNot({ code, signal, killed, message }: ExecFileException, timeoutMs: number): string {
  if (code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER') return `it printed more than ${OUTPUT_MAX_BYTES} bytes`
  if (code !== undefined && code !== null) return `it cannot be run: ${message.slice(0, SAID_MAX_LENGTH)}`
  return killed === true ? `it did not end within ${timeoutMs} ms` : `it was ended by ${signal}`
}
