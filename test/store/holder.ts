// Run as a process of its own: opens a device of the cache named by its argument, verifies chunk 0, says so, and waits to be killed.
import { writeSync } from 'node:fs'
import { Store } from '../../src/store/store.ts'
import { READY_HEADER_BYTES, READY_VERIFIED } from '../../src/tree/ready.ts'
import { flock } from './flock.ts'
import { tree } from './layer.ts'

const kept = tree(8)
const store = await Store.open(process.argv[2] ?? '', flock, console.error)
const slots = await store.openSlots(kept.digest, kept.chunks)
writeSync(slots.readyFd, Uint8Array.of(READY_VERIFIED), 0, 1, READY_HEADER_BYTES)
console.log(`chunk 0 is ${slots.state(0)}`)
setInterval(() => {}, 1000)
