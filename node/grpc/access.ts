import type { DescMethod, DescService, MessageShape } from "@bufbuild/protobuf";
import type {
  Actors,
  ActorAddress as ActorTarget,
  Admin,
  Entities,
  Ingest,
  Snapshots,
} from "../../proto/gen/starling_pb.ts";
import type { Need, Scope } from "../access/scope.ts";

/** What each method of a service needs, by its request; of a stream of requests, before the first one. */
export type Access<S extends DescService> = { readonly [K in keyof S["method"]]: Rule<S["method"][K]> };

type Rule<M extends DescMethod> = M extends { readonly methodKind: "bidi_streaming" }
  ? () => Need
  : (request: Pick<MessageShape<M["input"]>, RequestKeys<M>>) => Need;

type RequestKeys<M extends DescMethod> = Exclude<keyof MessageShape<M["input"]>, "$typeName" | "$unknown">;

const known: Need = { kind: "known" };
const some = (scope: Scope): Need => ({ kind: "some", scope });
const all = (scope: Scope): Need => ({ kind: "all", scope });
const of = (scope: Scope, type: string): Need => ({ kind: "type", scope, type });

/**
 * The one table of who may call what of the public services. Health and reflection are open; links between nodes know nodes
 * by their certificates. Datapoints are checked one by one beyond this, by their types.
 */
export const access: {
  readonly ingest: Access<typeof Ingest>;
  readonly entities: Access<typeof Entities>;
  readonly snapshots: Access<typeof Snapshots>;
  readonly admin: Access<typeof Admin>;
  readonly actors: Access<typeof Actors>;
} = {
  ingest: {
    stream: () => some("ingest"),
    send: () => some("ingest"),
  },
  entities: {
    get: ({ type }) => of("read", type),
    links: ({ type }) => of("read", type),
    list: ({ type }) => of("read", type),
    count: ({ type }) => (type === "" ? all("read") : of("read", type)),
    raw: ({ type }) => of("read", type),
    set: ({ type }) => of("ingest", type),
    delete: ({ type }) => of("control", type),
  },
  snapshots: {
    list: ({ type }) => of("read", type),
    count: ({ type }) => of("read", type),
    distinct: ({ type }) => of("read", type),
    history: ({ type }) => of("read", type),
    stream: ({ type }) => (type === "" ? all("read") : of("read", type)),
    run: () => all("control"),
    cancel: () => all("control"),
    // Numbers alone, and the names of hooks.
    runs: () => some("read"),
  },
  admin: {
    status: () => known,
    // Every client asks where to send.
    owners: () => known,
    listModules: () => some("read"),
    // Letters are of any type.
    listDeadLetters: () => all("read"),
    getDeadLetter: () => all("read"),
    replayDeadLetter: () => all("control"),
    discardDeadLetter: () => all("control"),
    clusterStatus: () => some("read"),
    // What a shard waits for names entities of any type.
    why: () => all("read"),
    move: () => all("control"),
    weigh: () => all("control"),
    drain: () => all("control"),
  },
  actors: {
    send: ({ to }) => ofActor("ingest", to),
    ask: ({ to }) => (to?.kind.case === "entity" ? of("read", to.kind.value.type) : all("ingest")),
  },
};

/** Behaviours have no type that a token could name. */
function ofActor(scope: Scope, to: ActorTarget | undefined): Need {
  return to?.kind.case === "entity" ? of(scope, to.kind.value.type) : all(scope);
}
