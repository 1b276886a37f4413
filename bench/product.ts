// lazylayer as a user starts it: the command, in the foreground, on an image in a registry.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type Mounted, startMount } from './mount.ts'

const COMMAND = join(import.meta.dirname, '../src/cli/lazylayer.js')

/** Mounts `image` on `dir` with its cache in `cache`, whatever lies in it; both are made if they are missing. */
export async function mountImage(image: string, dir: string, cache: string): Promise<Mounted> {
  await mkdir(dir, { recursive: true })
  await mkdir(cache, { recursive: true })
  return startMount([COMMAND, 'mount', '--cache', cache, '--tls-verify=false', image, dir], dir)
}
