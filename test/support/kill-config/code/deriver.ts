import { setTimeout } from "node:timers/promises";
import {
  BaseModule,
  type CallbackRegistrar,
  type DataPointTask,
  type Datapoint,
  type DerivedTask,
  type Eid,
  type ModuleConfig,
  type PlatformConfig,
} from "starling/modules";

/*
 * Derives for the own entity and for entities of other shards, at once and after a while, in chains. What exists in the
 * end does not depend on the delays; `test/support/kill-model.ts` says the same once more, for the whole load.
 */

const foundedAt = 1_600_000_000_000;

/** The module of the test that kills nodes. */
export class Deriver extends BaseModule {
  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    registrar.registerTaskHook("on_task_start", this.begin);
    registrar.registerAllowEntityCreationHook(this.allowItem, "item");
    registrar.registerAllowEntityCreationHook(this.allowGroup, "group");
    registrar.registerOnEntityCreationHook(this.greet, "item");
    registrar.registerOnEntityCreationHook(this.found, "group");
    registrar.registerOnNewAttrHook(this.join, "item", "number");
    registrar.registerOnNewAttrHook(this.echo, "item", "number");
    registrar.registerOnNewAttrHook(this.twice, "item", "level");
    registrar.registerOnNewAttrHook(this.sum, "group", "member");
  }

  private async begin(task: DataPointTask): Promise<void> {
    if (task.type === "world") await setTimeout(1);
  }

  private async allowItem(eid: Eid): Promise<boolean> {
    await pause();
    return isAllowed(eid);
  }

  private allowGroup(eid: Eid): boolean {
    return isAllowed(eid);
  }

  private async greet(eid: Eid): Promise<DerivedTask[]> {
    await pause();
    return [{ type: "item", eid, datapoints: [{ attr: "greeting", v: `hello ${eid}`, src: `greet:item/${eid}` }] }];
  }

  private found(eid: Eid): DerivedTask[] {
    const src = `found:group/${eid}`;
    const founded = { attr: "founded", v: String(eid), t1: foundedAt, t2: foundedAt, src };
    return [{ type: "world", eid: worldOf(eid), datapoints: [founded] }];
  }

  private join(eid: Eid, { v, t1, t2, c }: Datapoint): DerivedTask[] {
    const number = Number(v);
    const group = number % 50 === 0 ? `refused-${number % 3}` : `g${number % 12}`;
    return [{ type: "group", eid: group, datapoints: [{ attr: "member", v, t1, t2, c, src: `join:item/${eid}` }] }];
  }

  private async echo(eid: Eid, { v, t1, t2, c }: Datapoint): Promise<DerivedTask[]> {
    await pause();
    return [{ type: "item", eid, datapoints: [{ attr: "echo", v, t1, t2, c, src: `echo:item/${eid}` }] }];
  }

  private twice(eid: Eid, { v, c }: Datapoint): DerivedTask[] {
    const src = `twice:item/${eid}`;
    return [{ type: "item", eid, datapoints: [{ attr: "level_twice", v: 2 * Number(v), c, src }] }];
  }

  private sum(eid: Eid, { v, t1, t2, c }: Datapoint): DerivedTask[] | Promise<DerivedTask[]> {
    const src = `sum:group/${eid}`;
    const tasks = [{ type: "world", eid: worldOf(eid), datapoints: [{ attr: "grand", v, t1, t2, c, src }] }];
    return Number(v) % 4 === 0 ? pause().then(() => tasks) : tasks;
  }
}

function isAllowed(eid: Eid): boolean {
  return !String(eid).startsWith("refused-");
}

function worldOf(group: Eid): string {
  return `w${Number(String(group).slice(1)) % 3}`;
}

function pause(): Promise<void> {
  return setTimeout(Math.floor(4 * Math.random()));
}
