// Where this user's settings lie: the folders and variables that engines look at. Tests give others.
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** Folders, user and environment that decide which settings files are read. */
export interface Places {
  /** System-wide settings; /etc. */
  etc: string
  /** The user's home. */
  home: string
  /** Per-user folders of the running system; /run/containers. */
  run: string
  /** Outside of its user namespace. */
  uid: number
  env: Readonly<Record<string, string | undefined>>
}

/** This process's own. */
export function systemPlaces(): Places {
  return { etc: '/etc', home: homedir(), run: '/run/containers', uid: thisUser(), env: process.env }
}

/** `~/.config`, or what XDG_CONFIG_HOME says. */
export function configHome(places: Places): string {
  return places.env.XDG_CONFIG_HOME || join(places.home, '.config')
}

/** Who runs this process, outside of its user namespace. */
export function thisUser(): number {
  return userOutside(process.getuid?.() ?? 0, uidMap())
}

/** This process's user namespace, as user_namespaces(7) has it; '' where there is none. */
function uidMap(): string {
  try {
    return readFileSync('/proc/self/uid_map', 'utf8')
  } catch {
    return ''
  }
}

/**
 * Who a user is outside its user namespace: root of `podman unshare` is a plain user, whose directories are its own. A user that the
 * map does not have is itself.
 * @param map lines of `first inside, first outside, how many`
 */
export function userOutside(uid: number, map: string): number {
  for (const line of map.split('\n')) {
    const [inside = Number.NaN, outside = Number.NaN, count = Number.NaN] = line.trim().split(/ +/).map(Number)
    if (uid >= inside && uid < inside + count) return outside + uid - inside
  }
  return uid
}
