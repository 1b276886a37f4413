#!/usr/bin/env node
// The command `lazylayer`, in JavaScript that any Node from 18 on can run: it finds a Node that is new enough, puts commands that
// keep a mount alive under the keeper, and hands over to main.
//
//   old Node ──spawn──▶ packaged Node 24 ──execve──▶ keeper ──starts──▶ Node 24 (kept) ──▶ main
//            only if too old              mount, serve
import { accessSync, constants, existsSync } from 'node:fs'
import * as module from 'node:module'
import { constants as system } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { AGENT_FLAGS, isOlder } from './agent-flags.js'

const NODE_MIN = [22, 19] // type stripping without a flag (22.18) and its last fixes; package.json says the same in `engines`
/** Set for what runs under a keeper, by us and not by the keeper: whatever that does, it is not started within itself. */
const KEPT = 'LAZYLAYER_KEPT'
/** They hold a FUSE connection until they are told to end … */
const KEPT_COMMANDS = ['mount', 'serve']
/** … unless they only start another `lazylayer` that does, or print help. */
const UNKEPT_FLAGS = ['--detach', '-d', '--help', '-h']
/** Asked of the old Node's process, but meant for the agent. A terminal sends SIGINT and SIGQUIT to both by itself. */
const FORWARDED = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2']
const FORWARDED_WITHOUT_TERMINAL = ['SIGINT', 'SIGQUIT']

const self = fileURLToPath(import.meta.url)
const root = dirname(dirname(dirname(self)))
/** Node strips no types below node_modules; an installed package has dist/ for that. A checkout runs what is being edited. */
const isInstalled = self.includes('/node_modules/')
const REPAIR = isInstalled ? 'install lazylayer again, with its optional packages' : `run npm ci in ${root}`
/** What Node made of our sources: more than half of a start, and 30 MB, go into making it again. Beside them, for it is as good as they are. */
const COMPILED = join(root, '.cache/node')
const args = process.argv.slice(2)

if (isOlder(process.versions.node, NODE_MIN)) await runOnPackagedNode()
else {
  if (wantsKeeper()) becomeKeeper()
  await runMain()
}

async function runOnPackagedNode() {
  const { spawn } = await import('node:child_process') // others are spared it
  const name = `node-linux-${process.arch}`
  const node = findPackagedNode(name)
  if (node === undefined) {
    stop(
      `lazylayer needs Node ${NODE_MIN.join('.')} or newer`,
      `this is Node ${process.versions.node}, and the optional package ${name} is not installed`,
      `${REPAIR}, or use a newer Node`,
    )
    return
  }
  const child = spawn(node, [self, ...args], { stdio: 'inherit' })
  const hasTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY
  for (const signal of FORWARDED) process.on(signal, () => child.kill(signal))
  for (const signal of FORWARDED_WITHOUT_TERMINAL) process.on(signal, () => hasTerminal || child.kill(signal))
  child.on('error', (error) => stop(`cannot start ${node}`, error.message, REPAIR))
  // A shell's way of saying "ended by a signal".
  child.on('exit', (code, signal) => process.exit(code ?? 128 + system.signals[signal]))
}

function findPackagedNode(name) {
  try {
    const node = join(dirname(module.createRequire(self).resolve(`${name}/package.json`)), 'bin/node')
    return existsSync(node) ? node : undefined
  } catch {
    return undefined // not installed: the caller says so
  }
}

function wantsKeeper() {
  return KEPT_COMMANDS.includes(args[0]) && !UNKEPT_FLAGS.some((flag) => args.includes(flag)) && !process.env[KEPT]
}

/** Does not return, unless the keeper was not built: then main runs without, and says what that means. */
function becomeKeeper() {
  const keeper = join(root, 'native/lazylayer-keeper')
  if (!isExecutable(keeper)) return
  if (process.env.LISTEN_FDS !== undefined) keepStored(Number(process.env.LISTEN_FDS))
  process.execve(keeper, [keeper, process.execPath, ...AGENT_FLAGS, ...process.execArgv, self, ...args], {
    ...process.env,
    [KEPT]: '1',
    NODE_COMPILE_CACHE: COMPILED, // of the agent's worker threads too
    MALLOC_ARENA_MAX: process.env.MALLOC_ARENA_MAX ?? '2', // glibc keeps what a thread freed for that thread, and there are twenty
    // what is fetched goes back to the system when it is freed, however large pieces were before; glibc would raise this with each
    MALLOC_MMAP_THRESHOLD_: process.env.MALLOC_MMAP_THRESHOLD_ ?? '262144',
  })
}

/** What systemd stored of an earlier keeper, from descriptor 3 on, is the next one's; Node would close it. */
function keepStored(count) {
  try {
    const { keepOpen } = module.createRequire(self)(join(root, 'native/lazylayer.node'))
    for (let fd = 3; fd < 3 + count; fd++) keepOpen(fd)
  } catch {
    // without the addon there was no mount that anybody could go on with
  }
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

async function runMain() {
  module.enableCompileCache?.(COMPILED) // where it cannot be written, everything is only slower
  const entry = await import(join(root, isInstalled ? 'dist/cli/main.js' : 'src/cli/main.ts'))
  // threads that stand by keep no process alive, and for a moment main may wait for nothing else
  const waiting = setInterval(() => {}, 2 ** 30)
  try {
    process.exitCode = await entry.main(args)
  } finally {
    clearInterval(waiting)
  }
}

function stop(what, why, fix) {
  process.stderr.write(`${what}\n${why}\n${fix}\n`)
  process.exitCode = 1
}
