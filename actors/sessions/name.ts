/** Of a session's name, and of an idempotency key, after which a session is named. */
export const nameMaxLength = 200;

/** Whether a name holds a control character, or what is no character of the basic plane. */
export function isOdd(name: string): boolean {
  return /[^\x20-\x7e\u00a0-\ud7ff\ue000-\uffff]/.test(name);
}
