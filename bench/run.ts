// `npm run bench`: runs the cases, prints what was measured and why, and writes bench/record/<case>.json.
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makeInstalled } from '../packaging/bundle.ts'
import { describe, Failure } from '../src/errors.ts'
import { type Case, ROUNDS } from './case.ts'
import { besideBackground } from './cases/beside-background.ts'
import { buildKitBuild } from './cases/buildkit-build.ts'
import { coldReads } from './cases/cold-reads.ts'
import { coldStart } from './cases/cold-start.ts'
import { coldStartForms } from './cases/cold-start-forms.ts'
import { coldStartLinks } from './cases/cold-start-links.ts'
import { containerdStarts } from './cases/containerd-start.ts'
import { growthBytes } from './cases/growth-bytes.ts'
import { growthEntries } from './cases/growth-entries.ts'
import { growthLayers } from './cases/growth-layers.ts'
import { growthReaders } from './cases/growth-readers.ts'
import { imageWalk } from './cases/image-walk.ts'
import { learnedStart } from './cases/learned-start.ts'
import { mappedStart } from './cases/mapped-start.ts'
import { memory } from './cases/memory.ts'
import { newVersion } from './cases/new-version.ts'
import { nydusd } from './cases/nydusd.ts'
import { overlaySmallFiles } from './cases/overlay-small-files.ts'
import { overlayWalk } from './cases/overlay-walk.ts'
import { pageCache } from './cases/page-cache.ts'
import { podmanFar } from './cases/podman-far.ts'
import { podmanStarts } from './cases/podman-start.ts'
import { readAhead } from './cases/read-ahead.ts'
import { sequentialDropped } from './cases/sequential-dropped.ts'
import { sequentialWarm } from './cases/sequential-warm.ts'
import { shuffled } from './cases/shuffled.ts'
import { smallFiles } from './cases/small-files.ts'
import { snapshotCalls } from './cases/snapshot-calls.ts'
import { twentyStarts } from './cases/twenty-starts.ts'
import { walk } from './cases/walk.ts'
import { type Flags, parseFlags, USAGE } from './flags.ts'
import { growthPlot } from './growth-plot.ts'
import { measure, missed, takeTurns } from './measure.ts'
import { detachBelow } from './mount.ts'
import { svg } from './plot.ts'
import { compileProbe, type Probe } from './probe.ts'
import { type Outcome, type Recorded, record, table } from './record.ts'
import { filled } from './report.ts'

const GROWTH = [growthLayers, growthEntries, growthBytes, growthReaders]
const CASES: readonly Case[] = [
  walk,
  imageWalk,
  smallFiles,
  overlayWalk,
  overlaySmallFiles,
  sequentialWarm,
  sequentialDropped,
  coldStart,
  ...coldStartLinks,
  coldStartForms,
  learnedStart,
  readAhead,
  shuffled,
  pageCache,
  ...podmanStarts,
  ...containerdStarts,
  buildKitBuild,
  podmanFar,
  twentyStarts,
  mappedStart,
  coldReads,
  besideBackground,
  newVersion,
  memory,
  snapshotCalls,
  nydusd,
  ...GROWTH,
]
const HERE = import.meta.dirname
const DOCS = join(HERE, '../docs')
/** On the clone's own filesystem: that is the one compared with. */
const WORK = join(HERE, '../.cache/bench')

async function runCase(which: Case, flags: Flags, probe: Probe, closing: (() => Promise<void>)[]): Promise<Outcome> {
  const { rounds = which.rounds ?? ROUNDS } = flags
  const link = which.link ?? flags.link
  const dir = join(WORK, which.name)
  await mkdir(dir, { recursive: true })
  try {
    const subjects = await which.prepare({ dir, probe, link, defer: (close) => void closing.push(close) })
    const { measured, absent } = await takeTurns(subjects, rounds)
    const ratios = which.ratios.map((each) => measure(each, measured))
    return { case: which, rounds, link, subjects: measured, absent, ratios }
  } finally {
    await closeAll(closing)
  }
}

async function closeAll(closing: (() => Promise<void>)[]): Promise<void> {
  for (let close = closing.pop(); close !== undefined; close = closing.pop()) {
    try {
      await close()
    } catch (error) {
      process.stderr.write(`clean-up: ${describe(error)}\n`) // and go on: the rest must not be left behind
    }
  }
}

async function clear(): Promise<void> {
  await detachBelow(WORK)
  await rm(WORK, { recursive: true, force: true })
}

function recordOf(name: string): Recorded | undefined {
  const path = join(HERE, 'record', `${name}.json`)
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : undefined
}

async function drawRecords(): Promise<void> {
  const plotted: string[] = []
  for (const { name } of GROWTH) {
    const recorded = recordOf(name)
    if (recorded === undefined) continue
    await writeFile(join(DOCS, `${name}.svg`), svg(growthPlot(recorded)))
    plotted.push(name)
  }
  const page = join(DOCS, 'performance.md')
  await writeFile(page, filled(await readFile(page, 'utf8'), recordOf, plotted))
}

async function main(words: readonly string[]): Promise<number> {
  if (words.includes('--help')) {
    process.stdout.write(USAGE)
    return 0
  }
  const flags = parseFlags(
    words,
    CASES.map((each) => each.name),
  )
  if (flags.plot) {
    await drawRecords()
    return 0
  }
  const chosen = CASES.filter((each) => flags.cases.length === 0 || flags.cases.includes(each.name))
  const closing: (() => Promise<void>)[] = []
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      void closeAll(closing)
        .then(clear)
        .finally(() => process.exit(1)) // nothing follows that could be awaited
    })
  }
  await clear()
  let failed = false
  try {
    await mkdir(WORK, { recursive: true })
    await mkdir(join(HERE, 'record'), { recursive: true })
    await makeInstalled()
    const probe = await compileProbe(WORK)
    for (const each of chosen) {
      process.stderr.write(`${each.name} …\n`)
      const outcome = await runCase(each, flags, probe, closing)
      process.stdout.write(`\n${table(outcome)}`)
      const kept = record(outcome)
      if (kept !== undefined) await writeFile(join(HERE, 'record', `${each.name}.json`), kept)
      failed ||= outcome.ratios.some(missed)
    }
  } finally {
    await clear()
  }
  return failed && flags.strict ? 1 : 0
}

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  process.stderr.write(`bench: ${describe(error)}\n`)
  if (error instanceof Failure && error.fix) process.stderr.write(`${error.fix}\n`)
  process.exitCode = error instanceof Failure && error.code === 'usage' ? 2 : 1
}
