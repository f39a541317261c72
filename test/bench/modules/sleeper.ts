import { setTimeout } from "node:timers/promises";
import { BaseModule, type Datapoint, type Eid, type HookContext } from "starling/modules";

const asleepMs = 400;

/** Takes its time over each flag: an asynchronous hook that is running when its shard moves. */
export class Sleeper extends BaseModule {
  constructor(...args: ConstructorParameters<typeof BaseModule>) {
    super(...args);
    const [, , registrar] = args;
    const sleep = async (_eid: Eid, _datapoint: Datapoint, ctx: HookContext): Promise<null> => {
      await setTimeout(asleepMs, undefined, { signal: ctx.signal });
      return null;
    };
    registrar.registerOnNewAttrHook(sleep, "thing", "p_flag", { name: "sleep" });
  }
}
