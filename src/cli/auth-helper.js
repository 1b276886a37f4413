#!/usr/bin/env node
// The command `lazylayer-auth-helper`, named in registries.conf: additional-layer-store-auth-helper = "/usr/bin/lazylayer-auth-helper"
//
// Engines run it without arguments between an image's manifest and its layers, with `{"REFERENCE": {"username", "password",
// "identityToken"}}` on its standard input, and wait for its end. It has the agent list the image's layers. It prints nothing and never
// fails: without it, the engine pulls as it always does. In JavaScript that any Node from 18 on can run, and on its own, because it
// runs in every pull.
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'

/** The agent answers after 10 s at the latest; an engine is not kept longer than this. */
const DEADLINE_MS = 11_000
/** It is a symlink. */
const LOOK_TIMEOUT_MS = 5_000
/** Credentials of one image. */
const INPUT_MAX_BYTES = 60_000
/** One is usual. */
const REFERENCES_MAX = 8

const quit = () => process.exit(0)
process.on('uncaughtException', quit)
process.on('unhandledRejection', quit)
setTimeout(quit, DEADLINE_MS)

const asked = Object.entries(JSON.parse(await readInput())).slice(0, REFERENCES_MAX)
const socket = await findSocket()
await Promise.all(asked.map(([reference, credentials]) => ask({ op: 'list', reference, credentials })))
quit()

async function readInput() {
  let text = ''
  process.stdin.setEncoding('utf8')
  for await (const piece of process.stdin) {
    text += piece
    if (text.length > INPUT_MAX_BYTES) quit()
  }
  return text
}

/**
 * The store says where its agent listens. It is looked at by a process of its own: where the agent hangs, so does who looks, and not
 * even `process.exit` ends a process with such a thread.
 */
async function findSocket() {
  const root = process.env.LAZYLAYER_ROOT || (await defaultRoot())
  const look = { timeout: LOOK_TIMEOUT_MS, killSignal: 'SIGKILL' }
  const { stdout } = await promisify(execFile)('readlink', ['-n', join(root, 'agent.sock')], look)
  return resolve(root, stdout)
}

/** As the agent has it (places.ts). */
async function defaultRoot() {
  if ((await userOutside(process.getuid())) === 0) return '/var/lib/lazylayer/store'
  const share = process.env.XDG_DATA_HOME
  return join(share?.startsWith('/') ? share : join(homedir(), '.local/share'), 'lazylayer/store')
}

/** A plain user's engine runs as root of a user namespace, whose map has lines of `first inside, first outside, how many`. */
async function userOutside(uid) {
  for (const line of (await readFile('/proc/self/uid_map', 'utf8')).split('\n')) {
    const [inside, outside, count] = line.trim().split(/ +/).map(Number)
    if (uid >= inside && uid < inside + count) return outside + uid - inside
  }
  return uid
}

/** Resolves when the agent has answered or is gone; what it answers is in its own log. */
function ask(request) {
  return new Promise((done) => {
    const connection = createConnection(socket)
    connection.on('connect', () => connection.write(`${JSON.stringify(request)}\n`))
    connection.on('error', done)
    connection.on('close', done)
    connection.resume()
  })
}
