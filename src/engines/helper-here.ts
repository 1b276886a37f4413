// The auth helper that engines run: where this package has it.
import { constants } from 'node:fs'
import { access, readFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const HELPER = 'lazylayer-auth-helper'
const PACKAGE = fileURLToPath(new URL('../../', import.meta.url))

/** Its absolute path: in PATH, as an installed package's is, or in a checkout; undefined where it is not there. */
export async function findHelper(env: NodeJS.ProcessEnv): Promise<string | undefined> {
  const inPath = (env.PATH ?? '').split(delimiter).filter((dir) => dir.startsWith('/'))
  for (const path of [...inPath.map((dir) => join(dir, HELPER)), ...(await inPackage())]) {
    const runs = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (runs) return path
  }
  return undefined
}

async function inPackage(): Promise<string[]> {
  const { bin } = JSON.parse(await readFile(join(PACKAGE, 'package.json'), 'utf8')) as { bin?: Record<string, string> } // our own file
  const file = bin?.[HELPER]
  return file === undefined ? [] : [join(PACKAGE, file)]
}
