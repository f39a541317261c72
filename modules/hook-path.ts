import { StarlingError } from "../proto/starling-error.ts";
import { didYouMean } from "./did-you-mean.ts";
import type { AttributeSpec, EntitySpec, Model } from "./model.ts";

/** A path that a hook declares, checked against the model: links followed by one attribute. */
export interface HookPath {
  readonly steps: readonly string[];
  /** The links that it goes over: every step but the last. Their targets have to be at hand when the hook runs. */
  readonly links: readonly LinkStep[];
  /** The attribute at its end, as `type.attr`. */
  readonly end: string;
}

/** One link on a path. */
export interface LinkStep {
  readonly type: string;
  readonly attr: string;
  readonly target: string;
  /** Of a mirror the link that it mirrors: the step leads from that link's target to its sources. */
  readonly mirrors: { readonly type: string; readonly attr: string } | null;
}

/** What a hook of a snapshot reads and may change. */
export interface HookReach {
  readonly dependsOn: readonly HookPath[];
  readonly mayChange: readonly HookPath[];
  readonly pure: boolean;
}

/** Which of a hook's two lists a path stands in. */
export type PathList = "dependsOn" | "mayChange";

/** Checks a hook's list of paths. Raises MODULE that names list, path and step. */
export function parsePaths(model: Model, entity: EntitySpec, list: PathList, paths: unknown): HookPath[] {
  if (!Array.isArray(paths))
    throw wrong(`'${list}' is no list of paths: give paths such as [["attr"], ["link", "attr"]]`);
  return paths.map((path) => parsePath(model, entity, list, path));
}

/** A path as text: ids hold no dot. */
export function formatPath(steps: readonly string[]): string {
  return steps.join(".");
}

function parsePath(model: Model, entity: EntitySpec, list: PathList, path: unknown): HookPath {
  if (!Array.isArray(path) || path.length === 0 || !path.every((step) => typeof step === "string")) {
    throw wrong(`'${list}' holds ${JSON.stringify(path)}: each path is a list such as ["attr"]`);
  }
  const steps: readonly string[] = path;
  const links: LinkStep[] = [];
  let at = entity;
  for (const [index, step] of steps.entries()) {
    const where = `'${list}' ${JSON.stringify(steps)}, step ${index + 1}`;
    const spec = at.attributes.get(step);
    if (spec === undefined) {
      throw wrong(
        `${where}: entity type '${at.id}' has no attribute '${step}'${didYouMean(step, at.attributes.keys())}`,
      );
    }
    if (spec.kind === "timeseries") {
      throw wrong(
        `${where}: '${step}' of '${at.id}' is a timeseries, which no snapshot holds: use registerTimeseriesHook`,
      );
    }
    if (index === steps.length - 1) {
      if (list === "mayChange" && spec.readOnly) {
        throw wrong(`${where}: '${step}' of '${at.id}' is a mirror: change the link that it mirrors`);
      }
      break;
    }
    const target = spec.relation && model.entities.get(spec.relation.target);
    if (!target) throw wrong(`${where}: the path goes on after '${step}' of '${at.id}', which is no link`);
    links.push({ type: at.id, attr: step, target: target.id, mirrors: mirroredBy(at, spec, target) });
    at = target;
  }
  return { steps, links, end: `${at.id}.${steps.at(-1)}` };
}

/** The link that a mirror mirrors; null: the attribute is a link itself. */
function mirroredBy(entity: EntitySpec, spec: AttributeSpec, source: EntitySpec): LinkStep["mirrors"] {
  if (!spec.readOnly) return null;
  for (const { id, relation, readOnly } of source.attributeList) {
    if (!readOnly && relation?.target === entity.id && relation.mirror === spec.id)
      return { type: source.id, attr: id };
  }
  throw new Error(`the mirror ${entity.id}.${spec.id} mirrors nothing of ${source.id}`);
}

function wrong(what: string): StarlingError {
  return new StarlingError("MODULE", what);
}
