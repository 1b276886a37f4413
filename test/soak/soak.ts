// npm run soak [TARGET…]: feeds each parser with damaged inputs, 100,000 or as many as LAZYLAYER_SOAK_INPUTS says. Each target has a process
// of its own, whose memory is bounded, and in it a thread, which a watchdog waits for. The first input that does harm ends the target's
// run; it is written to a file, and its number makes it again: `npm run soak TARGET NUMBER`.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isMainThread, Worker, workerData } from 'node:worker_threads'
import { mutate } from './mutate.ts'
import { Random } from './random.ts'
import type { Target } from './target.ts'
import { TARGETS } from './targets.ts'

const INPUTS = 100_000
/** One input, on a machine that does much else. An index of this size is parsed within a few milliseconds. */
const DEADLINE_MS = 10_000
/** What the whole process had at the most; a few seeds and a tree of each need a tenth of that. */
const MEMORY_MAX_MB = 768

/** Shared between a process's two threads: numbers of inputs under way, read, refused, and whether all is over. */
const UNDER_WAY = 0
const READ = 1
const REFUSED = 2
const OVER = 3

interface Work {
  counts: Int32Array
  name: string
  from: number
  to: number
}

if (!isMainThread)
  await feed(workerData as Work) // what `watch` gave it
else if (process.argv[2] === '--target')
  await watch(named(process.argv[3]), Number(process.argv[4]), Number(process.argv[5]))
else process.exitCode = runAll(process.argv.slice(2))

function runAll(words: readonly string[]): number {
  const names = words.filter((word) => !/^\d+$/.test(word))
  const number = words.find((word) => /^\d+$/.test(word))
  const [from, to] =
    number === undefined
      ? [0, Number(process.env.LAZYLAYER_SOAK_INPUTS ?? INPUTS)]
      : [Number(number), Number(number) + 1]
  let failed = 0
  for (const { name } of names.length === 0 ? TARGETS : names.map(named)) {
    const args = [fileURLToPath(import.meta.url), '--target', name, `${from}`, `${to}`]
    if (spawnSync(process.execPath, args, { stdio: 'inherit' }).status !== 0) failed++
  }
  return failed === 0 ? 0 : 1
}

function named(name: string | undefined): Target {
  const target = TARGETS.find((each) => each.name === name)
  if (target) return target
  throw new Error(`${name} is no target: ${TARGETS.map((each) => each.name).join(', ')}`)
}

async function watch(target: Target, from: number, to: number): Promise<void> {
  const counts = new Int32Array(new SharedArrayBuffer(4 * Int32Array.BYTES_PER_ELEMENT))
  counts[UNDER_WAY] = from
  const began = performance.now()
  const work: Work = { counts, name: target.name, from, to }
  const worker = new Worker(new URL(import.meta.url), { workerData: work })
  let last = -1
  const fail = (why: unknown) => {
    const number = counts[UNDER_WAY] as number
    const path = join(mkdtempSync(join(tmpdir(), 'lazylayer-soak-')), `${target.name}-${number}`)
    writeFileSync(path, mutate(target.seeds, new Random(number)))
    console.error(`${target.name}: input ${number} (${path}): ${why instanceof Error ? why.stack : why}`)
    process.exit(1)
  }
  const timer = setInterval(() => {
    if (counts[UNDER_WAY] === last && counts[OVER] === 0) fail(`not done in ${DEADLINE_MS} ms`)
    last = counts[UNDER_WAY] as number
    if (memoryMb() > MEMORY_MAX_MB) fail(`the process has taken ${memoryMb()} MB, of ${MEMORY_MAX_MB}`)
  }, DEADLINE_MS)
  worker.on('error', fail)
  await new Promise((resolve) => worker.on('exit', resolve))
  clearInterval(timer)
  if (memoryMb() > MEMORY_MAX_MB)
    fail(`the process has taken ${memoryMb()} MB, of ${MEMORY_MAX_MB}, with this input or one before it`)
  const seconds = ((performance.now() - began) / 1000).toFixed(0)
  console.log(
    `${target.name}: ${to - from} inputs in ${seconds} s: ${counts[READ]} read, ${counts[REFUSED]} refused, ${memoryMb()} MB at the most`,
  )
}

async function feed({ counts, name, from, to }: Work): Promise<void> {
  const target = named(name)
  for (let number = from; number < to; number++) {
    counts[UNDER_WAY] = number
    const outcome = await target.run(mutate(target.seeds, new Random(number)))
    const count = outcome === 'read' ? READ : REFUSED
    counts[count] = (counts[count] as number) + 1
  }
  counts[OVER] = 1
}

/** What this process had at the most so far. */
function memoryMb(): number {
  return Math.round(process.resourceUsage().maxRSS / 1024)
}
