// The former place of what stores for engines are made of.
export { byEngine, type Door, type EngineStore, makeStore } from './engine-store.ts'
