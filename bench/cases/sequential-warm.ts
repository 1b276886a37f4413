// Sequential reads that the page cache answers.
import type { Case } from '../case.ts'
import { METRICS, sequentialSubjects } from './sequential.ts'

export const sequentialWarm: Case = {
  name: 'sequential-warm',
  explains: `A file of 128 MiB, read from start to end again and again with its pages in the page cache of every mount (checked with
    mincore): what a running container does with its libraries. No filesystem is asked, so all should be alike; one that loses
    its pages, or makes the kernel ask whether they still hold, shows here. ext4 holds the file itself.`,
  ratios: METRICS.flatMap((metric) => [
    { metric, of: 'lazylayer', over: 'ext4', atLeast: 0.7 },
    { metric, of: 'lazylayer', over: 'fuse-native' },
  ]),
  prepare: (context) => sequentialSubjects(context, 'keep'),
}
