import { BaseModule, type Datapoint, type DerivedTask, type Eid, type HookContext } from "starling/modules";

/** Derives for the own entity and for another one; fails where it is told to. */
export class Derive extends BaseModule {
  constructor(...args: ConstructorParameters<typeof BaseModule>) {
    super(...args);
    const [, , registrar] = args;
    registrar.registerAllowEntityCreationHook((eid: Eid) => !String(eid).startsWith("refused"), "device", {
      name: "allow",
    });
    registrar.registerOnNewAttrHook(this.derive, "device", "level", { name: "derive" });
    registrar.registerOnNewAttrHook(this.fail, "device", "label", { name: "fail", retries: 0 });
  }

  private derive(eid: Eid, { v }: Datapoint): DerivedTask[] {
    return [
      { type: "device", eid, datapoints: [{ attr: "echo", v: Number(v) + 1 }] },
      { type: "site", eid: Number(v) % 3, datapoints: [{ attr: "total", v: Number(v) }] },
    ];
  }

  private fail(_: Eid, { v }: Datapoint, ctx: HookContext): null {
    if (v === "throw odd text") throw new Error("odd text: \0\ud800");
    if (v === "throw" && ctx.record?.value("echo") === undefined) throw new Error("no echo yet");
    return null;
  }
}
