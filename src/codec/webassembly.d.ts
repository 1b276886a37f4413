// The little of WebAssembly's JavaScript interface that is used here; TypeScript has it in its DOM library only.
declare namespace WebAssembly {
  class Module {
    private readonly opaque
    constructor(bytes: Uint8Array)
  }
  class Instance {
    constructor(module: Module)
    readonly exports: Record<string, unknown>
  }
  interface Memory {
    readonly buffer: ArrayBuffer
  }
  class RuntimeError extends Error {}
  function compile(bytes: Uint8Array): Promise<Module>
}
