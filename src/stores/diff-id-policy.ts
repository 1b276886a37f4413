// --diffid: whose claims of DiffIDs are trusted. In a file of its own, because every command loads it to read its flags.

/**
 * Which claims of images are trusted: none, those of images with a signature that policy.json asks for, all of which no other image says
 * otherwise (guard.ts), or all.
 */
export type DiffIdPolicy = 'proven' | 'signed' | 'guarded' | 'claimed'

export const DIFF_ID_POLICIES: readonly DiffIdPolicy[] = ['proven', 'signed', 'guarded', 'claimed']
