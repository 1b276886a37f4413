// What a check of `doctor` is, and what checks may ask of the machine.
export type State = 'ok' | 'warning' | 'problem'

export interface Finding {
  state: State
  /** What was found, in a phrase. */
  found: string
  /** What to do, in a sentence. */
  fix?: string
}

/** One thing that `doctor` looks at. Its `run` rejects only for faults of our own. */
export interface Check<Needs> {
  name: string
  run(needs: Needs): Promise<Finding>
}

/** Files of the system. */
export interface Files {
  /** Text of a small file; undefined where there is none. @throws Failure */
  read(path: string): Promise<string | undefined>
  /** Undefined where there is none. */
  look(path: string): Promise<Seen | undefined>
  /** Bytes that this user may still write on the filesystem of `path`, and the filesystem's type (statfs.f_type). @throws Failure system, timeout */
  space(path: string): Promise<{ free: number; type: number }>
  /** In the order of their names; [] where there is no such directory. */
  list(dir: string): Promise<string[]>
}

export interface Seen {
  /** `dead`: a mount whose server is gone; `hung`: it does not answer; `closed`: not for this user. */
  kind: 'directory' | 'file' | 'device' | 'other' | 'dead' | 'hung' | 'closed'
  uid: number
  /** Permission bits, setuid included. */
  mode: number
  /** Whether this user may read and write it; whether it may run it. */
  writable: boolean
  executable: boolean
}

export const ok = (found: string): Finding => ({ state: 'ok', found })
export const warning = (found: string, fix: string): Finding => ({ state: 'warning', found, fix })
export const problem = (found: string, fix: string): Finding => ({ state: 'problem', found, fix })

/** The worst of several, which says what all of that state have found. */
export function together(findings: readonly Finding[]): Finding {
  for (const state of ['problem', 'warning'] as const) {
    const of = findings.filter((each) => each.state === state)
    if (of.length === 0) continue
    const fixes = [...new Set(of.map((each) => each.fix).filter((each) => each !== undefined))]
    return { state, found: of.map((each) => each.found).join('; '), fix: fixes.join(' ') }
  }
  return ok(findings.map((each) => each.found).join('; '))
}
