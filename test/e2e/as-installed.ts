// Before end-to-end tests: agents of theirs are what people install.
import { makeInstalled } from '../../packaging/bundle.ts'

// vitest wants a default export here.
export default makeInstalled
