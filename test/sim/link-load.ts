import type { DerivedTask } from "../../modules/datapoint.ts";
import type { HookContext } from "../../modules/hook.ts";
import type { CallbackRegistrar } from "../../modules/registrar.ts";
import { textHash } from "./text-hash.ts";

/*
 * What the hook `link` makes of some values: items that link to stops, lines and places, on whatever shards those are. A stop
 * lives as long as it is told of (`ttl`), a line until a value has it deleted, a place as long as an item links to it (`weak`).
 * All come back with the next value that names them.
 */

/** How long a stop lives after its creation, and after a datapoint. */
export const stopCreatedMs = 600;
export const stopSeenMs = 400;

/** Attributes and types of the model. */
export const linkTypes = {
  item: {
    to: "plain link<stop, string>",
    via: "plain link<line, string>",
    at: "observations link<line, string>",
    in: "plain link<place, string>",
  },
  targets: {
    stop: {
      named: `plain string; ttl: ${stopSeenMs / 1000}`,
      "#": `snapshot: no, lifetime: {type: ttl, on_create: ${stopCreatedMs / 1000}}`,
    },
    line: { called: "plain string", "#": "snapshot: no" },
    place: { marked: "plain string", "#": "snapshot: no, lifetime: {type: weak}" },
  },
} as const;

export const linkHookId = "sim/on_new_attr/item.x/link";

/** Attributes of items that link; whom they name can be gone. */
export const linkAttributes: ReadonlySet<string> = new Set(Object.keys(linkTypes.item));

const [stops, lines, places] = [5, 4, 12];

/** What the hook makes of a value. */
export type LinkAct =
  | { readonly kind: "stop"; readonly stop: string; readonly tokenMs: number }
  | { readonly kind: "line"; readonly line: string }
  | { readonly kind: "place"; readonly place: string }
  | { readonly kind: "delete"; readonly line: string };

/** The same for the same value; null: nothing. */
export function linkAct(v: string): LinkAct | null {
  const hash = textHash(`link ${v}`);
  const draw = hash % 24;
  const rest = Math.floor(hash / 24);
  const line = `l${rest % lines}`;
  if (draw < 3) return { kind: "stop", stop: `s${rest % stops}`, tokenMs: rest % 1200 };
  if (draw < 6) return { kind: "line", line };
  if (draw > 20) return { kind: "place", place: `p${rest % places}` };
  return draw === 6 && rest % 3 === 0 ? { kind: "delete", line } : null;
}

export function registerLinkHook(module: CallbackRegistrar): void {
  const link = (eid: string, v: string, ctx: HookContext) => {
    const act = linkAct(v);
    return act === null ? null : tasksOf(act, eid, `${ctx.key}|${v}`, ctx.now);
  };
  module.registerOnNewAttrHook((eid, { v }, ctx) => link(String(eid), String(v), ctx), "item", "x", { name: "link" });
}

function tasksOf(act: LinkAct, eid: string, data: string, now: number): DerivedTask[] {
  switch (act.kind) {
    case "stop":
      return [
        { type: "item", eid, datapoints: [{ attr: "to", v: { eid: act.stop, data } }] },
        {
          ...{ type: "stop", eid: act.stop, datapoints: [{ attr: "named", v: data }] },
          ttlTokens: { told: now + act.tokenMs },
        },
      ];
    case "line": {
      const v = { eid: act.line, data };
      return [
        {
          ...{ type: "item", eid },
          datapoints: [
            { attr: "via", v },
            { attr: "at", v, t1: now },
          ],
        },
        { type: "line", eid: act.line, datapoints: [{ attr: "called", v: data }] },
      ];
    }
    case "place":
      return [
        { type: "item", eid, datapoints: [{ attr: "in", v: { eid: act.place, data } }] },
        { type: "place", eid: act.place, datapoints: [{ attr: "marked", v: data }] },
      ];
    case "delete":
      return [{ type: "line", eid: act.line, delete: true }];
  }
}
