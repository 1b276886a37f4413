// Before end-to-end tests: agents of theirs are what people install.
import { makeInstalled } from '../../packaging/bundle.ts'

/** Of the process: each project of vitest has this module for itself. */
const all = globalThis as { lazylayerInstalled?: Promise<unknown> }

// vitest wants a default export here.
export default async function install(): Promise<void> {
  all.lazylayerInstalled ??= makeInstalled()
  await all.lazylayerInstalled
}
