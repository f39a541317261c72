import { StarlingError } from "../../proto/starling-error.ts";

/** What a token may allow: datapoints in, reading, and what changes or removes beyond that. */
export const scopes = ["ingest", "read", "control"] as const;
export type Scope = (typeof scopes)[number];

/** A scope that a token has, for one entity type or, with null, for all. */
export interface Grant {
  readonly scope: Scope;
  readonly type: string | null;
}

/** What a call needs. */
export type Need =
  /** A token that is known, whatever it allows. */
  | { readonly kind: "known" }
  /** The scope for at least one type. */
  | { readonly kind: "some"; readonly scope: Scope }
  /** The scope without a limit to types. */
  | { readonly kind: "all"; readonly scope: Scope }
  | { readonly kind: "type"; readonly scope: Scope; readonly type: string };

/** Reads `ingest`, or `ingest:TYPE`. Raises INVALID_ARGUMENT. */
export function parseGrant(text: string): Grant {
  const [name = "", ...rest] = text.split(":");
  const scope = scopes.find((one) => one === name);
  const type = rest.length === 0 ? null : rest.join(":");
  if (scope === undefined || type === "") {
    throw new StarlingError("INVALID_ARGUMENT", `${JSON.stringify(text)} is no scope: ${scopeForms}`);
  }
  return { scope, type };
}

/** What a scope may look like, for messages. */
export const scopeForms = `${scopes.join(", ")}, or one of them for one entity type, such as ingest:TYPE`;

/** As {@link parseGrant} reads it. */
export function writeGrant({ scope, type }: Grant): string {
  return type === null ? scope : `${scope}:${type}`;
}

/** Whether grants cover a need. */
export function covers(grants: readonly Grant[], need: Need): boolean {
  switch (need.kind) {
    case "known":
      return true;
    case "some":
      return grants.some(({ scope }) => scope === need.scope);
    case "all":
      return grants.some(({ scope, type }) => scope === need.scope && type === null);
    default:
      return grants.some(({ scope, type }) => scope === need.scope && (type === null || type === need.type));
  }
}

/** The scope that is missing, as it is granted. */
export function describeNeed(need: Exclude<Need, { kind: "known" }>): string {
  return need.kind === "type" ? `${need.scope}:${need.type}` : need.scope;
}
