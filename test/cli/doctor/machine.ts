// A machine for doctor's checks, of plain values: files by path, and what is looked at.

import type { Finding } from '../../../src/cli/doctor/check.ts'
import type { Files, Seen } from '../../../src/engines/machine.ts'
import { Failure } from '../../../src/errors.ts'

export const DISK = 0xef53

export const DIRECTORY: Seen = { kind: 'directory', uid: 0, mode: 0o700, writable: true, executable: false }
export const DEVICE: Seen = { kind: 'device', uid: 0, mode: 0o666, writable: true, executable: false }
export const PROGRAM: Seen = { kind: 'file', uid: 0, mode: 0o755, writable: false, executable: true }

export interface Contents {
  texts?: Record<string, string>
  seen?: Record<string, Seen>
  /** NaN: it cannot be asked. */
  free?: number
  type?: number
}

export function files({ texts = {}, seen = {}, free = 100e9, type = DISK }: Contents): Files {
  return {
    async read(path) {
      if (texts[path] === 'closed') throw Failure.system(`cannot read ${path}`)
      return texts[path]
    },
    look: async (path) => seen[path],
    async space(path) {
      if (Number.isNaN(free)) throw Failure.system(`${path} cannot be asked for its free space`)
      if (['closed', 'dead', 'hung'].includes(seen[path]?.kind ?? '')) throw new Error(`${path} was asked`)
      return { free, type }
    },
    list: async (dir) =>
      Object.keys(texts)
        .filter((path) => path.startsWith(`${dir}/`))
        .map((path) => path.slice(dir.length + 1))
        .sort(),
  }
}

/** For tables: the state, and a piece of what is said. */
export function summary({ state, found, fix }: Finding): { state: string; text: string } {
  return { state, text: fix === undefined ? found : `${found}. ${fix}` }
}
