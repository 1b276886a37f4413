import { expect, test } from 'vitest'
import { containerd } from '../../../src/cli/doctor/containerd.ts'
import { Failure } from '../../../src/errors.ts'
import type { SnapshotterPlugin } from '../../../src/snapshotter/plugins.ts'

const whole: SnapshotterPlugin = {
  id: 'lazylayer',
  exports: { root: '/var/lib/lazylayer', enable_remote_snapshot_annotations: 'true' },
  capabilities: ['remap-ids'],
  failed: undefined,
}
const check = (version: string, plugin?: Partial<SnapshotterPlugin>, kernel = '6.12.0-amd64') =>
  containerd.run({
    kernel,
    containerd: async () => ({ version, snapshotters: plugin === undefined ? [] : [{ ...whole, ...plugin }] }),
  })

test('a containerd that is set up, not set up, or not there is fine', async () => {
  for (const version of ['v2.4.2', '1.7.24~ds1']) expect(await check(version, {})).toMatchObject({ state: 'ok' })
  expect(await check('2.1.9')).toMatchObject({ state: 'ok', found: expect.stringContaining('names no snapshotter') })
  expect(await containerd.run({ kernel: '6.12.0', containerd: async () => undefined })).toMatchObject({ state: 'ok' })
})

test('what keeps layers from being lazy, or breaks them, is said with what to do', async () => {
  const expectState = async (state: string, of: Promise<unknown>, found: RegExp) =>
    expect(await of).toMatchObject({ state, found: expect.stringMatching(found), fix: expect.any(String) })
  await expectState('problem', check('2.4.2', { capabilities: ['remap-ids', 'rebase'] }), /loses layers/)
  await expectState('problem', check('2.4.2', { failed: 'dial timeout' }), /dial timeout/)
  await expectState('warning', check('2.4.2', { capabilities: [] }), /copies the whole image/)
  await expectState('warning', check('2.1.9', { capabilities: [] }), /copies the whole image/)
  await expectState('warning', check('2.1.9', { exports: { root: '/x' } }), /does not say which image/)
  expect(await check('2.1.9', {})).toMatchObject({ state: 'ok' })
  await expectState('warning', check('1.7.24', { exports: {} }), /kubelet watches/)
  expect(await check('1.7.24', { capabilities: [], exports: { root: '/x' } })).toMatchObject({ state: 'ok' })
  await expectState('problem', check('2.4.2', {}, '6.8.0-48-generic'), /Linux 6\.8\.0-48-generic maps no users/)
  expect(await check('2.4.2', { capabilities: [] }, '6.8.0-48-generic')).toMatchObject({ state: 'ok' })
  const silent = containerd.run({
    kernel: '6.12.0',
    containerd: () => Promise.reject(Failure.unavailable('containerd does not answer')),
  })
  await expectState('warning', silent, /does not answer/)
})
