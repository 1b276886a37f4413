// Sequential reads that the page cache answers.
import type { Case } from '../case.ts'
import { EXT4_BY_ENGINE, EXT4_BY_TAR, EXT4_READ_BACK, METRICS, sequentialSubjects } from './sequential.ts'

export const sequentialWarm: Case = {
  name: 'sequential-warm',
  explains: `A file of 128 MiB, read from start to end again and again with its pages in the page cache of every mount (checked with
    mincore): what a running container does with its libraries. No server is asked; what counts is in how large pieces (folios)
    the kernel keeps the file. FUSE keeps single pages of 4 KiB whatever the server does; ext4's depend on how they came in: the
    bar is the file as GNU tar unpacks it (writes of 10 KiB, small folios); for information also as engines write (32 KiB), and
    after its pages were dropped and read in again, when ext4 makes the largest folios and no FUSE file keeps up.`,
  ratios: METRICS.flatMap((metric) => [
    { metric, of: 'lazylayer', over: EXT4_BY_TAR, atLeast: 0.7 },
    { metric, of: 'lazylayer', over: EXT4_BY_ENGINE },
    { metric, of: 'lazylayer', over: EXT4_READ_BACK },
    { metric, of: 'lazylayer', over: 'fuse-native' },
  ]),
  prepare: (context) => sequentialSubjects(context, 'keep'),
}
