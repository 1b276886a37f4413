// What a process has cost so far, as the kernel counts it.
import { readFile } from 'node:fs/promises'
import { setTimeout } from 'node:timers/promises'

export interface Usage {
  cpuSeconds: number
  /** The most that it had in memory, mapped files included: VmHWM of proc_pid_status(5). */
  peakMb: number
}

const REST_MS = 300
const REST_TIMEOUT_MS = 10_000
const POLL_MS = 50

/** sysconf(_SC_CLK_TCK) is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100

export async function usageOf(pid: number): Promise<Usage> {
  // proc_pid_stat(5): PID (NAME) STATE …; after the name, utime and stime are the 12th and 13th
  const stat = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ').at(-1)?.split(' ') ?? []
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]
  return {
    cpuSeconds: (Number(stat[11]) + Number(stat[12])) / TICKS_PER_SECOND,
    peakMb: (Number(kib) * 1024) / 1e6,
  }
}

/** RssAnon of proc_pid_status(5): without what is mapped from files. */
export async function anonymousMb(pid: number): Promise<number> {
  const kib = /^RssAnon:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]
  return (Number(kib) * 1024) / 1e6
}

/** Resolves when a process has done what it does behind its start: it takes no processor time for a while, or for ten seconds did. */
export async function atRest(pid: number): Promise<void> {
  const until = performance.now() + REST_TIMEOUT_MS
  let seen = { cpuSeconds: -1, at: 0 }
  while (performance.now() < until) {
    const { cpuSeconds } = await usageOf(pid)
    const at = performance.now()
    if (cpuSeconds !== seen.cpuSeconds) seen = { cpuSeconds, at }
    else if (at - seen.at >= REST_MS) return
    await setTimeout(POLL_MS)
  }
}
