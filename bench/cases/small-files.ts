// How fast small files are read whose bytes are cached, by an agent that was just started.
import type { Case } from '../case.ts'
import { treeSubjects } from './tree.ts'

export const smallFiles: Case = {
  name: 'small-files',
  explains: `open, read and close of each of 20,000 files of 200 B to 9 KB, and stat of all entries: an interpreter that loads its
    modules, after a restart of the agent. Each turn mounts anew, on bytes fetched before (lazylayer verifies them again before
    their first use, which is in "cold"); "again" is the second time, with the kernel's caches full. ext4 is the tree itself and
    is always warm: the limit.`,
  ratios: [
    { metric: 'cold entries/s', of: 'lazylayer', over: 'fuse-native' },
    { metric: 'again entries/s', of: 'lazylayer', over: 'fuse-native' },
    { metric: 'again entries/s', of: 'lazylayer', over: 'ext4' },
  ],
  prepare: (context) => treeSubjects(context, { what: 'readall', cache: 'kept' }),
}
