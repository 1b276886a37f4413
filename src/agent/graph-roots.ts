// The storage roots of the engines of this machine, by their configuration: of root's engines, of CRI-O, and of users' Podman.

import { join } from 'node:path'
import { readCrioConf } from '../engines/crio-conf.ts'
import type { Files } from '../engines/machine.ts'
import { readStorageConf, storageConfsOf } from '../engines/storage-conf.ts'
import { configHome, type Places } from '../registry/places.ts'
import type { EngineRoot } from '../stores/read-roots.ts'

/** A user of the machine, as passwd(5) has it. */
export interface User {
  name: string
  uid: number
  home: string
}

const SYSTEM: EngineRoot = { dir: '/var/lib/containers/storage', run: '/run/containers/storage' }
/** Users whose homes are looked at: a machine with more gets them from a directory, and they are not in passwd. */
const USERS_MAX = 512

/**
 * Every root that an engine could have, whether it exists or not, each once. For root these are the roots of all users; for a user its own.
 * @throws Failure usage, system: a configuration that cannot be read names roots that nobody knows then
 */
export async function graphRoots(places: Places, files: Files): Promise<EngineRoot[]> {
  const found: EngineRoot[] = []
  const conf = await settingsOf(storageConfsOf(places), files)
  if (places.uid === 0) {
    found.push(SYSTEM, ...rootsIn(conf, SYSTEM))
    const crio = await readCrioConf(places.etc, files)
    const run = crio?.run ?? conf.runroot ?? SYSTEM.run
    for (const dir of [crio?.root, crio?.imageStore]) if (dir !== undefined) found.push(root(dir, run))
    const users = parseUsers((await files.read(join(places.etc, 'passwd'))) ?? '')
    for (const user of users) found.push(...(await rootsOfUser(user, join(user.home, '.config'), conf, files)))
  } else {
    const user = { name: places.env.USER ?? '', uid: places.uid, home: places.home }
    const share = places.env.XDG_DATA_HOME || join(places.home, '.local/share')
    found.push(root(join(share, 'containers/storage'), runOf(user)))
    found.push(...(await rootsOfUser(user, configHome(places), conf, files)))
  }
  const known = new Map(found.map((each) => [JSON.stringify(each), each]))
  return [...known.values()]
}

/** Users with a home of their own, root not among them. */
export function parseUsers(passwd: string): User[] {
  const users: User[] = []
  for (const line of passwd.split('\n')) {
    const [name = '', , uid = '', , , home = ''] = line.split(':')
    if (!/^[1-9]\d{0,9}$/.test(uid) || !home.startsWith('/') || home === '/') continue
    users.push({ name, uid: Number(uid), home })
  }
  return users.slice(0, USERS_MAX)
}

/** What storage.conf says of places. */
interface Settings {
  graphroot?: string
  runroot?: string
  imagestore?: string
  rootless_storage_path?: string
}

async function settingsOf(paths: readonly string[], files: Files): Promise<Settings> {
  const conf = await readStorageConf(paths, files)
  const storage = conf?.parsed.storage
  if (typeof storage !== 'object' || storage === null) return {}
  const found: Settings = {}
  for (const [key, value] of Object.entries(storage)) {
    if (typeof value !== 'string' || value === '') continue
    if (key === 'graphroot' || key === 'runroot' || key === 'imagestore' || key === 'rootless_storage_path') {
      found[key] = value
    }
  }
  return found
}

function rootsIn({ graphroot, runroot, imagestore }: Settings, otherwise: EngineRoot): EngineRoot[] {
  const run = runroot ?? otherwise.run
  return [graphroot ?? otherwise.dir, imagestore].filter((each) => each !== undefined).map((dir) => root(dir, run))
}

async function rootsOfUser(user: User, config: string, system: Settings, files: Files): Promise<EngineRoot[]> {
  const conf = join(config, 'containers/storage.conf')
  const usual = join(user.home, '.local/share/containers/storage')
  // a user whose home hangs, or is closed even to root, runs no engine on these stores now
  const own = (await files.look(conf))?.kind === 'file' ? await settingsOf([conf], files) : {}
  const named = [usual, own.graphroot, own.imagestore, own.rootless_storage_path, system.rootless_storage_path]
  const there: EngineRoot[] = []
  for (const path of new Set(named.filter((each) => each !== undefined).map((each) => expand(each, user)))) {
    const kind = (await files.look(path))?.kind
    if (kind === 'directory')
      there.push(root(path, own.runroot === undefined ? runOf(user) : expand(own.runroot, user)))
  }
  return there
}

/** Where the system has what a user keeps until the next boot. */
function runOf({ uid }: User): string {
  return `/run/user/${uid}/containers`
}

/** As engines do: `$HOME`, `$USER` and `$UID` are the user's. */
function expand(path: string, { name, uid, home }: User): string {
  const values: Readonly<Record<string, string>> = { HOME: home, USER: name, UID: String(uid) }
  return path.replace(/\$(?:\{(\w+)\}|(\w+))/g, (whole, braced, bare) => values[braced ?? bare] ?? whole)
}

function root(dir: string, run: string | undefined): EngineRoot {
  return run === undefined ? { dir } : { dir, run }
}
