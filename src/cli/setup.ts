// lazylayer setup podman|crio|containerd|buildkit|nerdctl|k3s: has the engine look into our stores, or ask our snapshotter (each of these has a
// file in setup/).
//
//   crio.conf.d/50-lazylayer.conf         where CRI-O is here and reads that storage.conf: no internal_repair, which would wipe its
//                                         storage; it stays while CRI-O knows any additional image store
//   crio.service.d/50-lazylayer.conf      crio only: starts behind lazylayer.service
//   registries.conf.d/50-lazylayer.conf   the auth helper, where it is installed and the engine runs it
//   storage.conf                          the stores of ROOT, added to what is there; the file as it was is kept beside it
//
// In this order, and undone from storage.conf to the file for CRI-O's repair, so that nothing that setup does has CRI-O know the image
// store while it would repair. Files of CRI-O's own may say otherwise, or name a store themselves: then setup says so.

import { release } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { places } from '../agent/agent-places.ts'
import { graphRoots } from '../agent/graph-roots.ts'
import { log } from '../agent/log.ts'
import { text, type Values } from '../agent/values.ts'
import { findHelper } from '../engines/helper-here.ts'
import { findEngines } from '../engines/here.ts'
import { machineFiles } from '../engines/machine.ts'
import { runProgram } from '../engines/program.ts'
import { VENDOR_STORAGE_CONF } from '../engines/storage-conf.ts'
import { Failure } from '../errors.ts'
import { hostPlatform } from '../image/manifest.ts'
import { systemPlaces } from '../registry/places.ts'
import type { Invocation } from './flags.ts'
import { apply } from './setup/apply.ts'
import { planBuildKit, planBuildKitUndo } from './setup/buildkit.ts'
import { planContainerd, planContainerdUndo } from './setup/containerd.ts'
import { hasUnit } from './setup/crio.ts'
import { unifiedDiff } from './setup/diff.ts'
import { planK3s, planK3sUndo } from './setup/k3s.ts'
import { hasLazyImages } from './setup/lazy-images.ts'
import { planNerdctl, planNerdctlUndo } from './setup/nerdctl.ts'
import { type Change, LAZY_IMAGES, planSetup, planUndo, type SetupRequest } from './setup/plan.ts'

const NO_UNIT =
  'lazylayer.service is not installed, so nothing starts the agent at boot: docs/operations.md says how (As a service)'

/** Where `setup containerd` has it listen, as docs/containerd.md says to serve it. */
const CONTAINERD_SOCKET = 'containerd.sock'
/** Each client has its own: what one does not know it has removed. */
const BUILDKIT_SOCKET = 'buildkit.sock'
/** Of k3s and RKE2. */
const RANCHER = '/var/lib/rancher'

export async function setup({ positionals, values }: Invocation): Promise<number> {
  const engine = positionals[0]
  const client = CLIENTS.find((each) => each === engine)
  if (client !== undefined) return await setupClient(client, values)
  if (engine !== 'podman' && engine !== 'crio') {
    const fix = `Use podman, crio, ${CLIENTS.join(', ')}.`
    throw Failure.usage(`setup of ${JSON.stringify(engine)} is not known`, { fix })
  }
  const { found, silent } = await findEngines()
  const root = resolve(text(values, 'root') ?? places().root)
  const request: SetupRequest = {
    engine,
    root,
    defaultRoot: places().root,
    places: systemPlaces(),
    vendor: VENDOR_STORAGE_CONF,
    engines: found,
    silent,
    helper: await findHelper(process.env),
  }
  const isUndo = values.undo === true
  const { changes, notes } = isUndo ? await planUndo(request) : await planSetup(request)
  if (notes.includes(LAZY_IMAGES)) {
    const roots = await graphRoots(request.places, machineFiles)
    if (await hasLazyImages(root, roots, machineFiles)) log(LAZY_IMAGES)
  }
  await carryOut(changes, values)
  for (const note of notes) if (note !== LAZY_IMAGES) log(note)
  if (!isUndo && request.places.uid === 0 && !(await hasUnit(request.places))) log(NO_UNIT)
  return 0
}

type ContainerdClient = 'containerd' | 'buildkit' | 'nerdctl' | 'k3s'

const CLIENTS: readonly ContainerdClient[] = ['containerd', 'buildkit', 'nerdctl', 'k3s']

async function setupClient(client: ContainerdClient, values: Values): Promise<number> {
  const { os, architecture } = hostPlatform()
  const root = resolve(text(values, 'root') ?? places().root)
  const wishes = {
    root: dirname(root),
    platform: `${os}/${architecture}`,
    socket: join(places().sockets, CONTAINERD_SOCKET),
    kernel: release(),
  }
  const version = async (program: string) => (await runProgram(program, ['--version']))?.stdout
  const request = { places: systemPlaces(), wishes, printed: await version('containerd') }
  const isUndo = values.undo === true
  const plan = {
    containerd: () => (isUndo ? planContainerdUndo : planContainerd)(request),
    buildkit: () =>
      (isUndo ? planBuildKitUndo : planBuildKit)({ ...request, socket: join(places().sockets, BUILDKIT_SOCKET) }),
    nerdctl: async () => (isUndo ? planNerdctlUndo : planNerdctl)({ ...request, nerdctl: await version('nerdctl') }),
    k3s: () => (isUndo ? planK3sUndo : planK3s)({ ...request, rancher: RANCHER, printed: version }),
  }[client]
  const { changes, notes } = await plan()
  await carryOut(changes, values)
  for (const note of notes) log(note)
  if (!isUndo && !(await hasUnit(request.places))) log(NO_UNIT)
  return 0
}

/** Or shows what it would do. */
async function carryOut(changes: readonly Change[], values: Values): Promise<void> {
  if (values['dry-run'] === true) {
    for (const { path, before, after } of changes) process.stdout.write(unifiedDiff(path, before, after))
  } else {
    for (const change of changes) {
      await apply(change)
      process.stdout.write(`${change.after === undefined ? 'removed' : 'wrote'} ${change.path}\n`)
    }
  }
  if (changes.length === 0) process.stdout.write('nothing to change\n')
}
