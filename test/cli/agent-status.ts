// What an agent says of itself that has done nothing yet.
import type { Status } from '../../src/agent/socket.ts'

export const IDLE: Status = {
  pid: 1,
  version: '0',
  root: '/s',
  serves: 'store',
  mount: 'fuse',
  mounts: [],
  layers: 0,
  bytes: { served: 0, fetched: 0, verified: 0 },
  requests: 0,
  counters: {},
  gauges: [],
  distributions: [],
}
