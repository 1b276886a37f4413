// Runs a program to its end and tells what it said.
import { execFile } from 'node:child_process'

export interface Outcome {
  code: number
  stdout: string
  stderr: string
}

export interface CommandOptions {
  /** Defaults to 300 s. */
  timeoutMs?: number
  cwd?: string
  env?: NodeJS.ProcessEnv
}

const OUTPUT_MAX_BYTES = 64 << 20

/** Resolves with any exit code; rejects, with the output so far, when the program cannot start or passes its time limit. */
export function command(file: string, args: readonly string[], options: CommandOptions = {}): Promise<Outcome> {
  const { timeoutMs = 300_000, cwd, env } = options
  return new Promise((resolve, reject) => {
    const limits = { timeout: timeoutMs, maxBuffer: OUTPUT_MAX_BYTES, killSignal: 'SIGKILL' as const }
    const where = { ...(cwd === undefined ? {} : { cwd }), ...(env === undefined ? {} : { env }) }
    execFile(file, args, { ...limits, ...where }, (error, stdout, stderr) => {
      if (error === null) resolve({ code: 0, stdout, stderr })
      else if (typeof error.code === 'number') resolve({ code: error.code, stdout, stderr })
      else {
        const why = error.killed ? `not done after ${timeoutMs} ms` : error.message
        reject(new Error(`${[file, ...args].join(' ')}: ${why}\n${stdout}${stderr}`))
      }
    }).stdin?.end()
  })
}

/** As `command`, but any exit code except 0 rejects. @returns stdout */
export async function succeed(file: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await command(file, args, options)
  if (code !== 0) throw new Error(`${[file, ...args].join(' ')}: exit code ${code}\n${stdout}${stderr}`)
  return stdout
}
