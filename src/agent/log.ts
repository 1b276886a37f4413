// What the agent tells whoever started it, on stderr.

export const log = (message: string): void => {
  process.stderr.write(`lazylayer: ${printable(message)}\n`)
}

/** In one line, and without control characters: what comes from images and registries would otherwise steer the terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, (each) => `\\x${each.charCodeAt(0).toString(16).padStart(2, '0')}`)
}
