// What containerd waits for while it holds locks that stop a node: the answers of the snapshots service.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { type Client, createClient } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import { AGENT_FLAGS } from '../../src/cli/agent-flags.js'
import { Snapshots as Service } from '../../src/snapshotter/generated/snapshots_pb.ts'
import type { Case, Context, Sample, Subject } from '../case.ts'
import { anonymousMb, usageOf } from '../usage.ts'

const LAZYLAYER = 'lazylayer'
const BOUND = 'bound'
const KNOWN = { images: 1_000, layers: 5, containers: 15_000 }
const ROUNDS = 1_000
const CALLS = ['Prepare', 'Mounts', 'Commit', 'Stat'] as const
const BOUND_MS = 10
const LIST = 'List MB'
/** Of a list of 20,000: what a few hundred of them take on their way. */
const LIST_MB = 30

export const snapshotCalls: Case = {
  name: 'snapshot-calls',
  explains: `An agent's snapshots service, in a process that runs as an agent does, that knows ${KNOWN.images} images of ${KNOWN.layers} layers and ${KNOWN.containers} containers is asked, one call after the other,
    ${ROUNDS} times to prepare a container, for its mounts, to commit it, and for what it is then: the 99th percentile of each, its records on a file system in memory,
    which need not wait for a disk. "CPU ms": what the service uses for one call, of all of them, on whatever machine. "${LIST}": by how much its memory grows while it lists all that it knows.`,
  rounds: 3,
  ratios: [
    ...CALLS.map((call) => ({ metric: p99(call), of: BOUND, over: LAZYLAYER, atLeast: 1 })),
    { metric: LIST, of: BOUND, over: LAZYLAYER, atLeast: 1 },
  ],
  async prepare(context) {
    const bound = { ...Object.fromEntries(CALLS.map((call) => [p99(call), BOUND_MS])), 'CPU ms': 1, [LIST]: LIST_MB }
    return [{ name: BOUND, open: async () => async () => bound }, served(context)]
  },
}

function served({ defer }: Context): Subject {
  return {
    name: LAZYLAYER,
    async open() {
      const dir = await mkdtemp('/dev/shm/lazylayer-bench-')
      const { images, layers, containers } = KNOWN
      const program = join(import.meta.dirname, '../snapshots-server.ts')
      const server = spawn(
        process.execPath,
        [...AGENT_FLAGS, program, dir, ...[images, layers, containers].map(String)],
        {
          stdio: ['ignore', 'pipe', 'inherit'],
        },
      )
      defer(async () => {
        const ended = once(server, 'exit')
        server.kill()
        await ended
        await rm(dir, { recursive: true })
      })
      await once(server.stdout, 'data')
      const nodeOptions = { createConnection: () => connect(join(dir, 'socket')) }
      const client = createClient(Service, createGrpcTransport({ baseUrl: 'http://localhost', nodeOptions }))
      let turn = 0
      return () => asked(client, server.pid as number, turn++) // it has started
    },
  }
}

async function asked(client: Client<typeof Service>, pid: number, turn: number): Promise<Sample> {
  const snapshotter = 'lazylayer'
  const times = CALLS.map((): number[] => [])
  const before = await usageOf(pid)
  for (let i = 0; i < ROUNDS; i++) {
    const key = `ns/${turn}-${i}/new`
    const name = `ns/${turn}-${i}/layer`
    const calls = [
      () => client.prepare({ snapshotter, key, parent: `ns/${i % KNOWN.images}/layer${KNOWN.layers - 1}`, labels: {} }),
      () => client.mounts({ snapshotter, key }),
      () => client.commit({ snapshotter, key, name }),
      () => client.stat({ snapshotter, key: name }),
    ]
    for (const [which, call] of calls.entries()) {
      const at = performance.now()
      await call()
      times[which]?.push(performance.now() - at)
    }
  }
  const cpu = (await usageOf(pid)).cpuSeconds - before.cpuSeconds
  const percentiles = CALLS.map((call, which) => [p99(call), times[which]?.sort((a, b) => a - b)[ROUNDS * 0.99] ?? 0])
  return {
    ...Object.fromEntries(percentiles),
    'CPU ms': (cpu * 1000) / ROUNDS / CALLS.length,
    [LIST]: await listed(client, pid),
  }
}

/** By how many MB the server grows, at most, as it is looked at after each part. */
async function listed(client: Client<typeof Service>, pid: number): Promise<number> {
  const before = await anonymousMb(pid)
  let most = before
  let seen = 0
  for await (const { info } of client.list({ snapshotter: 'lazylayer' })) {
    seen += info.length
    most = Math.max(most, await anonymousMb(pid))
  }
  if (seen < KNOWN.images * KNOWN.layers + KNOWN.containers) throw new Error(`only ${seen} snapshots were listed`)
  return most - before
}

function p99(call: string): string {
  return `${call} p99 ms`
}
