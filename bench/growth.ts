// How something grows: one image a size, the same start on each. A subject is called by who shows it and how large it is, as in
// `lazylayer, 20 layers`; plots read the size from that.
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type Agent, type Running, withAgent } from './agents.ts'
import type { Case, Context, Sample, Subject } from './case.ts'
import { type Served, serveLayout, TAG } from './image.ts'
import type { Probe } from './probe.ts'
import { usageOf } from './usage.ts'

export interface Size {
  count: number
  /** The layout is made in `dir`, which is new. */
  write(dir: string): Promise<void>
}

export interface Growth {
  name: string
  explains: string
  /** What is counted: layers, entries, … */
  unit: string
  sizes: readonly Size[]
  agents: readonly Agent[]
  /** What is measured of an image that was just shown; beside the time until then, requests, bytes, and the agent's memory and CPU time. */
  act(layers: readonly string[], probe: Probe, dir: string, count: number): Promise<Sample>
}

const ROUNDS = 3

export function growth({ name, explains, unit, sizes, agents, act }: Growth): Case {
  return {
    name,
    explains,
    rounds: ROUNDS,
    ratios: [],
    async prepare(context) {
      return sizes.flatMap(({ count, write }) => {
        const dir = join(context.dir, String(count))
        let served: Promise<Served> | undefined
        const image = () => {
          served ??= write(dir).then(() => serveLayout(dir, TAG, context.defer, context.link)) // of all agents
          return served
        }
        return agents.map((agent): Subject => {
          const subject = withAgent(agent, context.dir, image, (running, of) => shown(context, running, of, count, act))
          return { ...subject, name: `${agent.name}, ${count.toLocaleString('en')} ${unit}` }
        })
      })
    },
  }
}

async function shown(
  { probe, dir }: Context,
  agent: Running,
  image: Served,
  count: number,
  act: Growth['act'],
): Promise<Sample> {
  const begin = { at: performance.now(), ...image.counters() }
  const before = agent.pid === undefined ? undefined : await usageOf(agent.pid)
  const layers = await agent.show(image)
  await Promise.all(layers.map((each) => readdir(each)))
  const shownSeconds = (performance.now() - begin.at) / 1000
  const measured = await act(layers, probe, dir, count)
  const { requests, bytesDown } = image.counters()
  const sample = {
    'shown s': shownSeconds,
    ...measured,
    requests: requests - begin.requests,
    'MB down': (bytesDown - begin.bytesDown) / 1e6,
  }
  if (agent.pid === undefined || before === undefined) return sample
  const { cpuSeconds, peakMb } = await usageOf(agent.pid)
  return { ...sample, 'cpu s': cpuSeconds - before.cpuSeconds, 'peak MB': peakMb }
}
