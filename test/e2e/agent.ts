// The product as a user starts it, for end-to-end tests: the launcher with its keeper, cache and sockets in a folder of the test.
import { type ChildProcess, spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { INSTALLED_COMMAND } from '../../packaging/bundle.ts'
import { socketFor } from '../../src/agent/agent-places.ts'
import { ask, type Status } from '../../src/agent/socket.ts'
import { command, type Outcome } from './engines/command.ts'

/** The program that engines run in their pulls. */
export const HELPER = fileURLToPath(new URL('../../native/lazylayer-auth-helper', import.meta.url))

/** A machine that runs tests may be busy. */
const STATUS_TIMEOUT_MS = 30_000

export interface Agent {
  /** The line that said it is ready. */
  readonly line: string
  /** Of the agent itself, not of its keeper. */
  readonly pid: number
  status(): Promise<Status>
  /** What it wrote to stderr so far. */
  log(): string
  /** SIGTERM to the keeper, as systemd would; resolves with the exit code. */
  stop(): Promise<number>
  /** Resolves when the keeper has ended. */
  readonly ended: Promise<number>
}

/** Who runs it, and where; root in this very place if nothing is said. */
export interface As {
  /** A program that runs it, with its first arguments. */
  through?: readonly string[]
  env?: NodeJS.ProcessEnv
  /** Where `env` makes it put its sockets. */
  sockets?: string
  /** Of another installation. */
  launcher?: string
}

/** Resolves when a process has ended, also one that nobody has waited for: its files are closed then. */
export async function gone(pid: number): Promise<void> {
  const state = () =>
    readFile(`/proc/${pid}/stat`, 'utf8').then(
      (stat) => stat.split(') ').at(-1)?.[0],
      () => undefined,
    )
  await expect.poll(state).toBeOneOf([undefined, 'Z', 'X'])
}

/** @returns the process that goes on after that one, within so many milliseconds */
export async function successorOf(agent: Agent, pid: number, timeoutMs: number): Promise<number> {
  const now = () =>
    agent.status().then(
      (status) => status.pid,
      () => pid,
    ) // nobody listens in between
  await expect.poll(now, { timeout: timeoutMs, interval: 20 }).not.toBe(pid)
  return await now()
}

const environment = (work: string) => ({ ...process.env, RUNTIME_DIRECTORY: `${work}/run` })

/** `lazylayer ARGS` for a command that ends by itself. */
export function lazylayer(work: string, ...args: string[]): Promise<Outcome> {
  return lazylayerAs({ env: environment(work) }, ...args)
}

export function lazylayerAs({ through = [], env = {} }: As, ...args: string[]): Promise<Outcome> {
  const [program = '', ...rest] = [...through, process.execPath, INSTALLED_COMMAND, ...args]
  return command(program, rest, { env })
}

/**
 * `lazylayer mount …` or `serve …` on `dir`, running and ready; without a background unless `args` say which, since most tests are about
 * what reads ask for; and without a successor, since those that end it are about what it leaves.
 */
export async function startAgent(work: string, dir: string, args: readonly string[], as: As = {}): Promise<Agent> {
  const { through = [], env = environment(work), sockets = `${work}/run`, launcher = INSTALLED_COMMAND } = as
  const [name = '', ...flags] = args
  const background = args.includes('--background') ? [] : ['--background', 'off']
  const keeping = args.includes('--keeper-patience') ? [] : ['--keeper-patience', '0']
  const [program = '', ...rest] = [...through, process.execPath, launcher, name, ...background, ...keeping, ...flags]
  const child = spawn(program, rest, {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true, // signals for the test's own process group are not the agent's
  })
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text
  })
  const ended = new Promise<number>((done) => child.once('exit', (code, signal) => done(code ?? (signal ? 128 : 0))))
  const line = await firstLine(child)
  if (line === undefined) throw new Error(`lazylayer ${args.join(' ')} ended with ${await ended}: ${log}`)
  const status = async () => {
    const answer = await ask(socketFor(sockets, dir), { op: 'status' }, STATUS_TIMEOUT_MS)
    if (!answer?.ok || answer.status === undefined) throw new Error(`no agent answers for ${dir}: ${log}`)
    return answer.status
  }
  const { pid } = await status()
  return {
    line,
    pid,
    status,
    log: () => log,
    ended,
    async stop() {
      child.kill('SIGTERM')
      const code = await ended
      expect(log).not.toMatch(/ExperimentalWarning|DeprecationWarning/) // of Node, for what its users cannot change
      return code
    },
  }
}

async function firstLine(child: ChildProcess): Promise<string | undefined> {
  if (child.stdout === null) return undefined
  for await (const line of createInterface({ input: child.stdout })) return line
  return undefined
}
