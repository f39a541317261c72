/*
 * The little of `Reflect`'s metadata that the package which makes certificates needs before it is loaded: a proposal that
 * never became part of JavaScript. Source: https://rbuckton.github.io/reflect-metadata/
 */

const metadata = new WeakMap<object, Map<unknown, unknown>>();

function getOwnMetadata(key: unknown, target: object): unknown {
  return metadata.get(target)?.get(key);
}

function getMetadata(key: unknown, target: object | null): unknown {
  for (let at = target; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    const found = getOwnMetadata(key, at);
    if (found !== undefined) return found;
  }
  return undefined;
}

function defineMetadata(key: unknown, value: unknown, target: object): void {
  metadata.set(target, (metadata.get(target) ?? new Map<unknown, unknown>()).set(key, value));
}

Object.assign(Reflect, { getOwnMetadata, getMetadata, defineMetadata });
