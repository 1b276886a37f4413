import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { wantedContext } from '../../src/cli/label.ts'
import { folder } from '../store/folder.ts'

async function filesystems(...names: string[]): Promise<string> {
  const path = join(await folder(), 'filesystems')
  await writeFile(path, names.map((each) => `nodev\t${each}\n`).join(''))
  return path
}

test('a label is taken where SELinux runs, and nothing is where none is given', async () => {
  const kernel = await filesystems('sysfs', 'selinuxfs', 'fuse')
  for (const context of ['system_u:object_r:container_file_t:s0', 'a_u:b_r:c_t', 'u:r:t:s0-s0:c0.c1023,c5']) {
    expect(await wantedContext({ context }, kernel)).toBe(context)
  }
  expect(await wantedContext({}, '/nowhere')).toBeUndefined()
})

test('what is no label is refused, above all what would be another option of the mount', async () => {
  const kernel = await filesystems('selinuxfs')
  for (const context of ['label', 'a:b', 'u:r:t:s0"', 'u:r:t,allow_other', 'u:r:t:s0 x', '']) {
    await expect(wantedContext({ context }, kernel)).rejects.toMatchObject({ code: 'usage' })
  }
})

test('without SELinux a label is refused before anything is mounted', async () => {
  const kernel = await filesystems('selinuxfs2', 'fuse')
  await expect(wantedContext({ context: 'u:r:t:s0' }, kernel)).rejects.toThrow('this kernel does not run')
})
