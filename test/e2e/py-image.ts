// py-esgz, if LAZYLAYER_SAMPLES has it: a Python program in an image that a tool of this field has converted and optimized.
import { join } from 'node:path'
import { type AppImage, readApp } from './app-image.ts'
import { STORE_LACKS } from './engine-store.ts'
import { samples } from './engines/needs.ts'

const images = samples()
/** Why it cannot be had here. */
export const PY_LACKS = 'lacking' in images ? images.lacking : STORE_LACKS

/** For `makeAppStore`. */
export function findPy(): Promise<AppImage> {
  const layout = join('path' in images ? images.path : '', 'images/py-esgz')
  return readApp({ layout, tag: 'py', says: 'hello from flask\n', line: 'python3 /app/app.py' })
}
