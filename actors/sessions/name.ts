/** Of a session's name, and of an idempotency key, after which a session is named. */
export const nameMaxLength = 200;

/** Whether a text holds a control character or half of a surrogate pair. */
export function isOdd(text: string): boolean {
  return /[\p{Cc}\p{Cs}]/u.test(text);
}
