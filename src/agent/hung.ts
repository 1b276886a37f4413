// An agent whose socket is there and that does not answer: whose it is, and what to do.
import { readdir, readFile, readlink } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import { isKernelMount } from '../mount/kernel-mounts.ts'
import { type MountEntry, mountTable } from '../mount/mount-table.ts'
import { socketFor } from './places.ts'

/** What is known of it, by looking at the system alone. */
export interface Hung {
  pid: number | undefined
  /** The mounted directory. */
  dir: string | undefined
  /** By a signal, or a debugger. */
  stopped: boolean
}

/** What to say of it. */
export function hungFailure(socket: string, agent: Hung, timeoutMs: number): Failure {
  const { pid, dir, stopped } = agent
  const who = pid === undefined ? '' : ` (process ${pid})`
  return Failure.timeout(`the agent ${dir === undefined ? `at ${socket}` : `of ${dir}`}${who} is hung`, {
    why: stopped ? 'it is stopped, by a signal or a debugger' : `it did not answer for ${timeoutMs} ms`,
    fix: fixOf(socket, agent),
  })
}

function fixOf(socket: string, { pid, dir, stopped }: Hung): string {
  if (pid === undefined)
    return `Find the process that has the socket (ss -xlp | grep ${socket}), and end it by its number.`
  const again = dir === undefined ? 'start it again' : `start it again on ${dir}`
  const end = `kill -KILL ${pid} ends it, which detaches what it mounted; then ${again}.`
  return stopped ? `kill -CONT ${pid} lets it go on. Or ${end}` : end
}

/** Never rejects, and never touches what is mounted. */
export async function hungAgent(socket: string): Promise<Hung> {
  const pid = await listenerOf(socket).catch(() => undefined) // no /proc, or one that hides others' processes
  // a plain user's store is mounted where only its agent sees it
  const tables = ['/proc/self/mountinfo', ...(pid === undefined ? [] : [`/proc/${pid}/mountinfo`])]
  let dir: string | undefined
  for (const table of tables) dir ??= servedBy(socket, await mountTable(table).catch(() => []))
  return { pid, dir, stopped: pid !== undefined && (await isStopped(pid)) }
}

/** The directory whose agent has this socket. */
function servedBy(socket: string, table: readonly MountEntry[]): string | undefined {
  const ours = table.filter((each) => each.type.startsWith('fuse.') || isKernelMount(each))
  return ours.find(({ point }) => socket.endsWith(socketFor('/', point)))?.point
}

/** /proc/net/unix: `Num RefCount Protocol Flags Type St Inode Path`; this flag is set of sockets that listen (__SO_ACCEPTCON). */
const LISTENS = '00010000'

async function listenerOf(socket: string): Promise<number | undefined> {
  const sockets = (await readFile('/proc/net/unix', 'utf8')).split('\n').map((line) => line.trim().split(/\s+/))
  const found = sockets.find(([, , , flags, , , , path]) => flags === LISTENS && path === socket)
  const wanted = `socket:[${found?.[6]}]`
  if (found === undefined) return undefined
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const fds = await readdir(`/proc/${pid}/fd`).catch(() => []) // another user's, or gone
    const targets = await Promise.all(fds.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => '')))
    if (targets.includes(wanted)) return Number(pid)
  }
  return undefined
}

/** proc_pid_stat(5): the state is the first field behind the name, which may hold anything. */
async function isStopped(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '') // gone meanwhile
  return ['T', 't'].includes(stat.slice(stat.lastIndexOf(')') + 2)[0] ?? '')
}
