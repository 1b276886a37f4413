// What making room asks of the system, which Node has no calls for. The native part has it; without that nothing is taken back of a device
// that is in use.

export interface Disk {
  /** Ends a lock of flock(2) of the open file behind `fd`. */
  unlock(fd: number): void
  /** Gives blocks back to the filesystem: pairs of start and end, in bytes. Off the main thread. */
  punchHoles(fd: number, ranges: Float64Array): Promise<void>
  /**
   * Whether nobody else has the file open that `fd` has open for writing, the kernel's mounts included, wherever they are. False where
   * the filesystem cannot tell.
   */
  isOnlyOpener(fd: number): boolean
  /** @returns the descriptor of a file in memory, which the caller closes */
  memoryFile(name: string): number
}
