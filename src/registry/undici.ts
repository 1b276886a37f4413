// What is used of undici, without the rest of it: its own entry also loads fetch, caches, mocks, WebSockets and more, which cost an
// agent 13 MB and some 30 ms of its start. These lie where they do in the pinned version; a test compares them with the entry's own.
import { createRequire } from 'node:module'
import type * as Undici from 'undici'

const load = createRequire(import.meta.url)

export type Agent = Undici.Agent
export const Agent: typeof Undici.Agent = load('undici/lib/dispatcher/agent.js')
export type Pool = Undici.Pool
export const Pool: typeof Undici.Pool = load('undici/lib/dispatcher/pool.js')
export const makeConnector: typeof Undici.buildConnector = load('undici/lib/core/connect.js')

// as the entry does: these are methods of all dispatchers
Object.assign(load('undici/lib/dispatcher/dispatcher.js').prototype, load('undici/lib/api/index.js'))
