// What V8 is told of an agent, in JavaScript that any Node from 18 on can run.

/** As src/format/parser.ts has it. */
const CRAMPED_MAX_BYTES = 512 << 20
/** From here on V8's middle compiler is on, Maglev: without it nothing would stand in for TurboFan. */
const MAGLEV_NODE = 24
/**
 * An agent waits most of its life: young generations that grow to tens of megabytes a thread, as V8 lets them, stay for ever (1: in MB). And
 * it works in bursts of a second: TurboFan's code comes when they are over, and a quarter of the processor time goes into making it. Maglev's
 * is worth it for what a burst calls a thousand times: a tree is built in three quarters of the time that it takes where that is 4,000
 * times. Another fifth goes into marking what is alive each time that a heap has grown by some megabytes, and nearly all of it is: an
 * index becomes a tree.
 *
 * What WebAssembly calls of JavaScript 1,000 times, as the parser of HTTP/1.1 does, gets a wrapper of its own; when V8 frees one while other
 * threads do the same, it may end the process ("Check failed: jit_page.has_value()", nodejs/node#64500). So nothing gets one.
 */
export const AGENT_FLAGS = [
  '--max-semi-space-size=1',
  ...(isCramped() ? [] : ['--initial-old-space-size=96']), // in MB, a thread: what is there before the first marking
  '--expose-gc', // threads that wait collect no garbage by themselves (codec/worker.ts)
  ...(isOlder(process.versions.node, [MAGLEV_NODE, 0])
    ? []
    : ['--no-turbofan', '--invocation-count-for-maglev=1000', '--wasm-wrapper-tiering-budget=2000000000']),
]

/** Whether whoever started this process lets it have little memory: then garbage costs more than processor time does. */
function isCramped() {
  const bytes = process.constrainedMemory?.() ?? 0
  return bytes > 0 && bytes <= CRAMPED_MAX_BYTES
}

/** Of two versions; what is behind the second number counts for neither. */
export function isOlder(version, [leastMajor, leastMinor]) {
  const [major, minor] = version.split('.').map(Number)
  return major < leastMajor || (major === leastMajor && minor < leastMinor)
}
