// How long calls of containerd took to be answered, by the call and by how it was answered.
import { Durations, type Times } from '../registry/pulse.ts'

/**
 * ok       done, also where containerd is told that a layer is there
 * refused  for a reason of the client's: it is there already, or is not, or must not be
 * failed   for one of ours, or a deadline passed
 */
export type CallCode = 'ok' | 'refused' | 'failed'

export interface CallDurations extends Times {
  readonly call: string
  readonly code: CallCode
}

export class CallTimes {
  /** By call and code: a service has a dozen calls. */
  readonly #of = new Map<string, { call: string; code: CallCode; durations: Durations }>()

  note(call: string, code: CallCode, seconds: number): void {
    const key = `${call} ${code}`
    const of = this.#of.get(key) ?? { call, code, durations: new Durations() }
    this.#of.set(key, of)
    of.durations.note(seconds)
  }

  /** Of what was called by now. */
  all(): CallDurations[] {
    return [...this.#of.values()].map(({ call, code, durations }) => ({ call, code, ...durations.times }))
  }
}
