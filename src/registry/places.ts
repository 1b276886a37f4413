// Where this user's settings lie: the folders and variables that engines look at. Tests give others.
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
  uid: number
  env: Readonly<Record<string, string | undefined>>
}

/** This process's own. */
export function systemPlaces(): Places {
  return { etc: '/etc', home: homedir(), run: '/run/containers', uid: process.getuid?.() ?? 0, env: process.env }
}

/** `~/.config`, or what XDG_CONFIG_HOME says. */
export function configHome(places: Places): string {
  return places.env.XDG_CONFIG_HOME || join(places.home, '.config')
}
