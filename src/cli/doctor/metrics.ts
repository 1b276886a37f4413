// Whether the agent of ROOT tells monitoring of itself (serve --metrics).
import type { Status } from '../../agent/socket.ts'
import { type DoctorCheck, ok, problem } from './check.ts'

interface MetricsNeeds {
  /** Without symlinks. */
  real: string
  agents(): Promise<{ statuses: Status[] }>
}

const LOOPBACK = /^(127\.|\[::1\])/

export const metrics: DoctorCheck<MetricsNeeds> = {
  name: 'metrics',
  async run({ real, agents }) {
    const found = (await agents()).statuses.find(({ root }) => root === real)
    if (found === undefined) return ok('no agent to ask')
    if (found.metrics === undefined) return ok('not told (lazylayer serve --metrics PORT tells them)')
    const { address, unready } = found.metrics
    if (unready !== undefined)
      return problem(`http://${address}/readyz says that it is not ready: ${unready}`, 'See what propagation says.')
    const others = LOOPBACK.test(address) ? '' : ', for whoever reaches that address'
    return ok(`http://${address}/metrics${others}; ready`)
  },
}
