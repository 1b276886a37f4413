// How fast a tree is listed that nobody looked at yet.
import type { Case } from '../case.ts'
import { treeSubjects } from './tree.ts'

export const walk: Case = {
  name: 'walk',
  explains: `readdir and stat of every entry of a tree of 20,200 entries, as tools do that look for something. "cold" is the
    first walk after mounting, when the kernel knows nothing; "again" is the second. Each turn mounts anew; lazylayer also begins
    with an empty cache, next to its registry (no link between: a walk fetches no file), and is timed from when it says that it
    is ready ("ready s" after its start). ext4 is the tree itself and is always warm: the limit.`,
  ratios: [
    { metric: 'cold entries/s', of: 'lazylayer', over: 'fuse-native', atLeast: 5 },
    { metric: 'again entries/s', of: 'lazylayer', over: 'fuse-native' },
    { metric: 'cold entries/s', of: 'lazylayer', over: 'ext4' },
  ],
  prepare: (context) => treeSubjects(context, { what: 'walk', cache: 'empty' }),
}
