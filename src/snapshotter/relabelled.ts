// The labels of a snapshot behind an Update, whose mask names `labels` or `labels.<key>`, and nothing else. Pure.
import { Failure } from '../errors.ts'
import { type Labels, REMOTE } from './snapshot.ts'

const LABEL_PATH = 'labels.'

/** @param paths none: all labels. An empty value takes a label away. @throws Failure usage: something else is to be changed */
export function relabelled(before: Labels, labels: Labels, paths: readonly string[]): Labels {
  const other = paths.find((each) => each !== 'labels' && !each.startsWith(LABEL_PATH))
  if (other !== undefined) throw Failure.usage(`${JSON.stringify(other)} of a snapshot cannot be changed`)
  const isAll = paths.length === 0 || paths.includes('labels')
  const named = paths.flatMap((each) => (each.startsWith(LABEL_PATH) ? [each.slice(LABEL_PATH.length)] : []))
  const changed = isAll ? labels : Object.fromEntries(named.map((key) => [key, labels[key] ?? '']))
  const kept = isAll ? Object.fromEntries(Object.entries(before).filter(([key]) => key === REMOTE)) : before
  return Object.fromEntries(Object.entries({ ...kept, ...changed }).filter(([, value]) => value !== ''))
}
