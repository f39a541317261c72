import type { Engine } from "../../actors/engine.ts";
import { linksOf, linksTo } from "../../actors/links/link-attributes.ts";
import type { LinkAt, LinksQuery } from "../../actors/store/stored-link.ts";
import { checkEid, findEntity } from "../../modules/check-datapoint.ts";
import { eidText } from "../../modules/eid.ts";
import type { Model } from "../../modules/model.ts";
import type { LinksRequest } from "../../proto/gen/starling_pb.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { StarlingError } from "../../proto/starling-error.ts";

export interface LinksOptions {
  readonly engine: Engine;
  readonly model: Model;
  /** The wall clock, Unix ms. */
  readonly now: () => number;
}

const limitDefault = 100;
const limitMax = 1_000;

/** Answers `Entities.Links`, from the entity's own shard in either direction. */
export async function findLinks({ engine, model, now }: LinksOptions, request: LinksRequest) {
  const entity = findEntity(model, request.type);
  const eid = eidText(entity, checkEid(entity, request.eid));
  const { reverse, at = now() } = request;
  const limit = request.limit === 0 ? limitDefault : Math.min(request.limit, limitMax);
  const shard = shardOf("entity", entity.id, eid, engine.entityShards);
  const attributes = reverse ? linksTo(model, entity) : linksOf(entity);
  const asOf = engine.flushedUpTo();
  const query = { shard, type: entity.id, eid, reverse, at, attributes, after: readCursor(request.cursor), limit };
  const found = attributes.length === 0 ? [] : await engine.queries.links(query);
  const last = found.length === limit ? found.at(-1) : undefined;
  return { links: found.map(onWire), cursor: last === undefined ? "" : writeCursor(last), asOf, at };
}

function onWire({ attr, type, eid, span }: LinkAt) {
  return { attr, type, eid, ...(span !== null && { t1: span.from, t2: span.to }) };
}

function writeCursor({ attr, type, eid }: LinkAt): string {
  return JSON.stringify([attr, type, eid]);
}

function readCursor(cursor: string): LinksQuery["after"] {
  if (cursor === "") return null;
  try {
    const parsed: unknown = JSON.parse(cursor);
    if (Array.isArray(parsed) && parsed.length === 3 && parsed.every((part) => typeof part === "string")) {
      const [attr = "", type = "", eid = ""] = parsed as string[];
      return { attr, type, eid };
    }
  } catch {
    // Said below, with the form that it should have.
  }
  throw new StarlingError("INVALID_ARGUMENT", `${JSON.stringify(cursor)} is no cursor of an earlier answer`);
}
