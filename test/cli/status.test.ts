import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { socketFor } from '../../src/agent/places.ts'
import { listen, type Status } from '../../src/agent/socket.ts'
import { command } from '../e2e/engines/command.ts'
import { folder } from '../store/folder.ts'
import { IDLE } from './agent-status.ts'

const LAUNCHER = fileURLToPath(new URL('../../src/cli/lazylayer.js', import.meta.url))

/** `lazylayer status` with one agent, whose counters are these. */
async function status(counters: Status['counters']) {
  const run = await folder()
  const status: Status = { ...IDLE, layers: 2, bytes: { ...IDLE.bytes, fetched: 1000 }, requests: 3, counters }
  const server = await listen(socketFor(run, '/s'), async () => ({ ok: true, status }))
  onTestFinished(() => void server.close())
  const env = { ...process.env, RUNTIME_DIRECTORY: run }
  return await command(process.execPath, [LAUNCHER, 'status'], { env })
}

test('a line an agent, and a word of layers that are quarantined', async () => {
  const well = await status({ quarantined: 0 })
  expect(well).toMatchObject({ code: 0, stderr: '' })
  expect(well.stdout).toMatch(/^DIR .*PID\n\/s +store +fuse +2 +0 B +1\.0 kB +0 B +3 +1\n$/)
  const ill = await status({ quarantined: 1 })
  expect(ill).toMatchObject({ code: 0, stdout: well.stdout })
  expect(ill.stderr).toBe("lazylayer: /s: 1 layer quarantined; the agent's log says which and why\n")
})
