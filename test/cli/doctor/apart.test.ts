// Whether doctor sees that an agent is not told of pulls which it has to keep apart.
import { expect, test } from 'vitest'
import type { Status } from '../../../src/agent/socket.ts'
import { apart } from '../../../src/cli/doctor/apart.ts'
import { Failure } from '../../../src/errors.ts'
import type { DiffIdPolicy } from '../../../src/stores/diff-id-policy.ts'

const agentOf = (root: string, policy: DiffIdPolicy) =>
  ({ root, diffid: { policy, trust: [], only: false } }) as unknown as Status // what the check looks at
const needs = (statuses: Status[], untold: () => Promise<string[]>) => ({
  root: '/store',
  real: '/srv/store',
  agents: async () => ({ statuses }),
  untold,
})
const never = () => Promise.reject(new Error('nobody needs to know'))

test('only an agent of this store that keeps images apart has to be told', async () => {
  for (const statuses of [[], [agentOf('/srv/store', 'claimed')], [agentOf('/another', 'guarded')]]) {
    expect(await apart.run(needs(statuses, never))).toMatchObject({ state: 'ok' })
  }
})

test('an engine that does not tell is a problem, and settings that cannot be read are a warning', async () => {
  const guarded = [agentOf('/srv/store', 'guarded')]
  expect(await apart.run(needs(guarded, async () => []))).toMatchObject({ state: 'ok' })
  expect(await apart.run(needs(guarded, async () => ['podman 5.1.2 runs no auth helper']))).toMatchObject({
    state: 'problem',
    found: expect.stringContaining('podman 5.1.2 runs no auth helper'),
  })
  expect(await apart.run(needs(guarded, () => Promise.reject(Failure.usage('no TOML'))))).toMatchObject({
    state: 'warning',
    found: expect.stringContaining('no TOML'),
  })
})
