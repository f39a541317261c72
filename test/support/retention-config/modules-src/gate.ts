import { existsSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { BaseModule, type Datapoint, type DerivedTask, type Eid, type HookContext } from "starling/modules";

/** Answers about every device at once, about `slow` only when the file that GATE_FILE names is there. */
export class Gate extends BaseModule {
  constructor(...args: ConstructorParameters<typeof BaseModule>) {
    super(...args);
    const [, , registrar] = args;
    registrar.registerOnNewAttrHook(this.echo, "device", "level", { name: "echo", timeoutMs: 600_000 });
  }

  private async echo(eid: Eid, { v }: Datapoint, { signal }: HookContext): Promise<DerivedTask[]> {
    while (eid === "slow" && !existsSync(process.env.GATE_FILE ?? "")) await delay(20, undefined, { signal });
    return [{ type: "device", eid, datapoints: [{ attr: "echo", v: Number(v) + 1 }] }];
  }
}
