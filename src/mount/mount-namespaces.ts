// Mount namespaces of this machine, by the processes that are in them. One that is made copies every mount; where it is made private, as by
// unshare(1), it keeps its copies whatever is unmounted here, and they keep busy what they are made of.
import { readdir, readFile, readlink } from 'node:fs/promises'
import { mountTable, OWN_TABLE } from './mount-table.ts'

/** More are not named in a sentence. */
const KEEPERS_MAX = 3

/** A table of each mount namespace, as far as they are seen from here. */
export async function tablesHere(): Promise<string[]> {
  const tables = new Map<string, string>()
  tables.set(await readlink('/proc/self/ns/mnt').catch(() => ''), OWN_TABLE)
  for (const name of await readdir('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue
    const namespace = await readlink(`/proc/${name}/ns/mnt`).catch(() => undefined) // it has ended, or is not ours to look at
    if (namespace !== undefined && !tables.has(namespace)) tables.set(namespace, `/proc/${name}/mountinfo`)
  }
  return [...tables.values()]
}

/**
 * A process of each other mount namespace that keeps copies of mounts at or below `dir`: `podman (12)`; three at most.
 * @param tables mountinfo of processes, as `tablesHere` names them
 */
export async function keepersOf(dir: string, tables?: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (const table of tables ?? (await tablesHere())) {
    if (table === OWN_TABLE || found.length === KEEPERS_MAX) continue
    const entries = await mountTable(table).catch(() => []) // the process has ended, or is not ours to look at
    if (!entries.some(({ point, kept }) => kept && (point === dir || point.startsWith(`${dir}/`)))) continue
    const process = table.replace(/\/mountinfo$/, '')
    const name = await readFile(`${process}/comm`, 'utf8').catch(() => '?')
    found.push(`${name.trim()} (${process.replace(/^.*\//, '')})`)
  }
  return found
}
