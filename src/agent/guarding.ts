// What watches over believed layers in a store's agent: what images say of their layers, and the proofs that follow when the link is idle.
import { setTimeout as sleep } from 'node:timers/promises'
import { type Clock, IdleLink } from '../proof/idle-link.ts'
import { ContestedNames } from '../store/contested.ts'
import { BelievedProofs } from '../stores/believed-proofs.ts'
import { Guard } from '../stores/guard.ts'
import { NameClaims } from '../stores/name-claims.ts'
import type { Agent } from './agent.ts'
import { log } from './log.ts'

export interface Guarding {
  guard: Guard
  /** Layers that wait for their proofs. */
  believed(): number
  /** When the proofs that the agent's end ends have ended. */
  end(): Promise<void>
}

const CLOCK: Clock = {
  now: () => performance.now(),
  pause: (ms, signal) => sleep(ms, undefined, { ref: false, ...(signal === undefined ? {} : { signal }) }),
}

/** @param keepsApart as GuardParts has it. @param progress as StoreParts has it. @throws Failure system */
export async function openGuard(
  {
    layers,
    examinations,
    registries,
    budget,
    store,
  }: Pick<Agent, 'layers' | 'examinations' | 'registries' | 'budget' | 'store'>,
  keepsApart: boolean,
  progress: () => number,
): Promise<Guarding> {
  const claims = new NameClaims()
  const contested = await ContestedNames.open(store.dir, log)
  const before = await contested.all()
  examinations.watch((claim, verdict) => claims.judged(claim, verdict))
  const link = new IdleLink(() => ({ asked: registries.counters().requests, ...budget.traffic }), CLOCK)
  const proofs = new BelievedProofs({
    layers,
    whenIdle: (work, signal) => link.whenIdle(work, signal),
    beside: (blob, hurries) => link.beside(blob, hurries),
    judged: (of, verdict) => claims.judged(of, verdict),
    corrupt: (claim) => void guard.withhold(claim), // never rejects
    ...CLOCK,
    signal: layers.signal,
    log,
  })
  const guard = new Guard({ keepsApart, claims, proofs, contested, progress, log }, before)
  return { guard, believed: () => proofs.size, end: () => proofs.close() }
}
