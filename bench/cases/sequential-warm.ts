// Sequential reads that the page cache answers.
import type { Case } from '../case.ts'
import { BY_EROFS, BY_FUSE } from '../product.ts'
import { EXT4_BY_ENGINE, EXT4_BY_TAR, EXT4_READ_BACK, METRICS, sequentialSubjects } from './sequential.ts'

export const sequentialWarm: Case = {
  name: 'sequential-warm',
  explains: `A file of 128 MiB, read from start to end again and again with its pages in the page cache of every mount (checked with
    mincore): what a running container does with its libraries. No server is asked; what counts is in how large pieces (folios)
    the kernel keeps the file. FUSE keeps single pages of 4 KiB whatever the server does; EROFS makes large ones, and so does ext4, by how
    the pages came in: small ones as GNU tar unpacks (writes of 10 KiB), larger ones as engines unpack (32 KiB), the largest after
    they were dropped and read in again. The bars are: 0.9 of the file as an engine wrote it, which is what a pulled image is; and
    0.7 of the strictest, the file read back.`,
  rounds: 10,
  ratios: METRICS.flatMap((metric) => [
    { metric, of: BY_EROFS, over: EXT4_BY_ENGINE, atLeast: 0.9 },
    { metric, of: BY_EROFS, over: EXT4_READ_BACK, atLeast: 0.7 },
    { metric, of: BY_EROFS, over: EXT4_BY_TAR },
    { metric, of: BY_EROFS, over: BY_FUSE },
    { metric, of: BY_EROFS, over: 'fuse-native' },
    { metric, of: BY_FUSE, over: EXT4_BY_TAR, atLeast: 0.7 },
  ]),
  prepare: (context) => sequentialSubjects(context, 'keep'),
}
