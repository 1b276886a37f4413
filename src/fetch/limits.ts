// How large requests may be, and why.
import type { Priority } from '../image/blob.ts'
import type { RunLimits } from './runs.ts'

export interface Limits extends Readonly<Record<Priority, RunLimits>> {}

// A gap costs its transfer, a request its round trip: at 100 Mbit/s, 64 KiB take 5 ms, which is less than the round trip to any
// registry outside the building. A run is held in memory and nothing of it is decoded before it is complete: 4 MiB are 0.3 s
// at that rate, which somebody who waits for one of its chunks can bear; prefetch has nobody waiting, and wants few requests.
export const LIMITS: Limits = {
  demand: { gapMaxBytes: 64 << 10, runMaxBytes: 4 << 20 },
  prefetch: { gapMaxBytes: 64 << 10, runMaxBytes: 8 << 20 },
}
