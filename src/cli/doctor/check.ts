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
