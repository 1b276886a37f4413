import { expect, test } from 'vitest'
import type { Status } from '../../../src/agent/socket.ts'
import { metrics } from '../../../src/cli/doctor/metrics.ts'
import { IDLE as STATUS } from '../agent-status.ts'

const run = (statuses: Status[]) => metrics.run({ real: STATUS.root, agents: async () => ({ statuses }) })

test('where nothing is told, how to have it', async () => {
  expect(await run([])).toEqual({ state: 'ok', found: 'no agent to ask' })
  expect(await run([STATUS])).toMatchObject({ state: 'ok', found: expect.stringContaining('serve --metrics PORT') })
})

test('where they are, and who can read them', async () => {
  const at = (address: string) => run([{ ...STATUS, metrics: { address } }])
  expect(await at('127.0.0.1:9811')).toEqual({ state: 'ok', found: 'http://127.0.0.1:9811/metrics; ready' })
  expect(await at('[::1]:9811')).toEqual({ state: 'ok', found: 'http://[::1]:9811/metrics; ready' })
  expect((await at('0.0.0.0:9811')).found).toBe('http://0.0.0.0:9811/metrics, for whoever reaches that address; ready')
})

test('an agent that is not ready is a problem, with its reason', async () => {
  const found = await run([{ ...STATUS, metrics: { address: '127.0.0.1:9811', unready: 'engines do not see it' } }])
  expect(found).toMatchObject({ state: 'problem', found: expect.stringContaining('engines do not see it') })
})
