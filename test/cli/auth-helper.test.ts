// The helper that engines run in every pull: whatever happens, it says nothing, fails nothing, and ends.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { type Answer, listen, type Request } from '../../src/agent/socket.ts'
import { folder } from '../store/folder.ts'

const HELPER = fileURLToPath(new URL('../../src/cli/auth-helper.js', import.meta.url))
const CREDENTIALS = { username: 'ada', password: 'x', identityToken: '' }
const INPUT = JSON.stringify({ 'r.example/app:1': CREDENTIALS })

/** Runs it as an engine does. @returns what it printed, its exit code, and how long it took */
async function run(root: string, input: string) {
  const started = performance.now()
  const child = spawn(process.execPath, [HELPER], { env: { LAZYLAYER_ROOT: root }, stdio: 'pipe' })
  let printed = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (printed += text))
  child.stdin.on('error', () => {}) // it need not read all of it
  child.stdin.end(input)
  const [code] = await once(child, 'close')
  return { code, printed, tookMs: performance.now() - started }
}

/** A root whose agent answers so. */
async function rootWith(answer: (request: Request) => Promise<Answer>): Promise<string> {
  const root = await folder()
  const server = await listen(join(root, 'run', 'a.sock'), answer)
  onTestFinished(() => void server.close())
  await symlink(join(root, 'run', 'a.sock'), join(root, 'agent.sock'))
  return root
}

const SILENT = { code: 0, printed: '' }

test('it hands the reference and its credentials over, and ends when they were dealt with', async () => {
  const asked: Request[] = []
  let done = false
  const root = await rootWith(async (request) => {
    asked.push(request)
    await new Promise((wait) => setTimeout(wait, 200))
    done = true
    return { ok: true }
  })
  expect(await run(root, INPUT)).toMatchObject(SILENT)
  expect(done).toBe(true)
  expect(asked).toEqual([{ op: 'list', reference: 'r.example/app:1', credentials: { username: 'ada', password: 'x' } }])
})

test('an agent that refuses, breaks off or is gone fails nothing', async () => {
  const refusing = await rootWith(async () => ({ ok: false, what: 'no' }))
  expect(await run(refusing, INPUT)).toMatchObject(SILENT)
  const dead = await folder()
  await symlink('/nowhere/a.sock', join(dead, 'agent.sock'))
  expect(await run(dead, INPUT)).toMatchObject(SILENT)
  expect(await run(await folder(), INPUT)).toMatchObject(SILENT)
})

test('input that is none fails nothing', async () => {
  const root = await rootWith(async () => ({ ok: true }))
  for (const input of ['', '{', 'null', '[]', '{}', '"x"', '{"not a reference": null}', 'x'.repeat(1 << 20)]) {
    expect(await run(root, input)).toMatchObject(SILENT)
  }
})

test('an agent that hangs holds up a pull for its deadline and no longer', async () => {
  const root = await rootWith(() => new Promise(() => {}))
  const { tookMs, ...rest } = await run(root, INPUT)
  expect(rest).toEqual(SILENT)
  expect(tookMs).toBeGreaterThan(10_000)
})
