// Sequential reads that the page cache answers.
import type { Case } from '../case.ts'
import { METRICS, sequentialSubjects } from './sequential.ts'

export const sequentialWarm: Case = {
  name: 'sequential-warm',
  explains: `A file of 128 MiB, read from start to end again and again with its pages in the page cache of every mount (checked with
    mincore): what a running container does with its libraries. No server is asked; what counts is in how large pieces (folios)
    the kernel keeps the file. FUSE keeps single pages of 4 KiB whatever the server does. "ext4" is the file as an engine has just
    unpacked it (written 32 KiB at a time, pages as that left them), which is what a container reads without lazylayer; "ext4,
    read back" is the same after its pages were dropped and read in again, when ext4 makes the largest folios.`,
  ratios: METRICS.flatMap((metric) => [
    { metric, of: 'lazylayer', over: 'ext4', atLeast: 0.7 },
    { metric, of: 'lazylayer', over: 'ext4, read back' },
    { metric, of: 'lazylayer', over: 'fuse-native' },
  ]),
  prepare: (context) => sequentialSubjects(context, 'keep'),
}
