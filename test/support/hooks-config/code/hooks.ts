import {
  BaseModule,
  type CallbackRegistrar,
  type DataPointTask,
  type Datapoint,
  type DerivedTask,
  type Eid,
  type HookContext,
  type ModuleConfig,
  type PlatformConfig,
} from "starling/modules";

/** Says in which order hooks run and what they see; fails, hangs and derives without end where it is told to. */
export class Hooks extends BaseModule {
  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    for (const place of ["first", "second"]) {
      const name = { name: place };
      registrar.registerTaskHook("on_task_start", ({ eid }, ctx) => tell(ctx, "on_task_start", place, eid), name);
      const allow = (eid: Eid, _: DataPointTask, ctx: HookContext) => {
        tell(ctx, "allow_entity_creation", place, eid);
        if (eid === "stranger" && place === "first") throw new Error("the list of guests is lost");
        return true;
      };
      registrar.registerAllowEntityCreationHook(allow, "guest", { ...name, retries: 0 });
      const create = (eid: Eid, _: DataPointTask, ctx: HookContext) => {
        tell(ctx, "on_entity_creation", place, eid);
        return place === "first" ? null : [{ type: "guest", eid, datapoints: [{ attr: "gift", v: "flowers" }] }];
      };
      registrar.registerOnEntityCreationHook(create, "guest", name);
      for (const attr of ["name", "visit"]) {
        const note = (eid: Eid, { v }: Datapoint, ctx: HookContext) => {
          tell(ctx, "on_new_attr", place, eid, `${attr} ${v}`);
          return null;
        };
        registrar.registerOnNewAttrHook(note, "guest", attr, name);
      }
    }
    registrar.registerOnNewAttrHook(hang, "guest", "mood", { timeoutMs: 2000, retries: 0 });
    registrar.registerOnNewAttrHook(further, "link", "depth");
  }
}

/** One line of the log for each run; each entity has its own message, as a log holds back what repeats itself. */
function tell({ log, record }: HookContext, point: string, place: string, eid: Eid, datapoint?: string): void {
  const seen =
    record === null ? null : Object.fromEntries(record.attributes().map((attr) => [attr, record.value(attr)]));
  log.info({ point, place, eid, seen, datapoint }, `hook ran for ${eid}`);
}

function hang(_: Eid, { v }: Datapoint): Promise<null> | null {
  return v === "absent" ? new Promise(() => {}) : null;
}

/** Each link derives the next one, of another entity. */
function further(_: Eid, { v }: Datapoint): DerivedTask[] {
  const depth = Number(v) + 1;
  return [{ type: "link", eid: depth, datapoints: [{ attr: "depth", v: depth }] }];
}
