import { setTimeout } from "node:timers/promises";
import {
  BaseModule,
  type CallbackRegistrar,
  type Datapoint,
  type DerivedTask,
  type Eid,
  type HookContext,
  type ModuleConfig,
  type PlatformConfig,
} from "starling/modules";

/*
 * Derives within the shard and across shards, at once and after a while. Each derived datapoint carries the number of its cause
 * and the key of the run that made it; `test/support/cluster/expected-streams.ts` says the same once more.
 */

/** The module of the tests of several nodes. */
export class Deriver extends BaseModule {
  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    registrar.registerOnNewAttrHook(this.echo, "probe", "number");
    registrar.registerOnNewAttrHook(this.mirror, "probe", "number");
    registrar.registerOnNewAttrHook(this.fifth, "mirror", "seen");
  }

  /** Of every second number, of every tenth after a while. */
  private echo(eid: Eid, { v, t1 }: Datapoint, ctx: HookContext): DerivedTask[] | Promise<DerivedTask[]> {
    const number = Number(v);
    if (number % 2 !== 0) return [];
    const echo = { attr: "echo", v: `${number} ${ctx.key}`, t1, t2: t1, src: String(eid) };
    const tasks = [{ type: "probe", eid, datapoints: [echo] }];
    return number % 10 === 0 ? setTimeout(number % 7).then(() => tasks) : tasks;
  }

  private mirror(eid: Eid, { v, t1 }: Datapoint, ctx: HookContext): DerivedTask[] {
    const seen = { attr: "seen", v: `${Number(v)} ${ctx.key}`, t1, t2: t1, src: String(eid) };
    return [{ type: "mirror", eid: `m${numberOf(eid) % 100}`, datapoints: [seen] }];
  }

  private fifth(eid: Eid, { v, t1, src }: Datapoint, ctx: HookContext): DerivedTask[] {
    const [number = ""] = String(v).split(" ");
    if (Number(number) % 5 !== 0) return [];
    const fifth = { attr: "fifth", v: `${number} ${ctx.key}`, t1, t2: t1, src: src ?? "" };
    return [{ type: "total", eid: `t${numberOf(eid) % 20}`, datapoints: [fifth] }];
  }
}

function numberOf(eid: Eid): number {
  return Number(String(eid).slice(1));
}
