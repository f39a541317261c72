import { BaseModule, type Datapoint, type Eid, type HookContext } from "starling/modules";

/** Reads the record at every datapoint: the synchronous hook of the benchmarks. */
export class Reader extends BaseModule {
  readonly counts = { seen: 0 };

  constructor(...args: ConstructorParameters<typeof BaseModule>) {
    super(...args);
    const [, , registrar] = args;
    const attributes = [
      "p_text",
      "p_int",
      "p_float",
      "p_flag",
      "o_level",
      "o_state",
      "o_count",
      "o_temp",
      "peer",
      "load",
    ];
    for (const attr of attributes) {
      registrar.registerOnNewAttrHook(
        (_: Eid, datapoint: Datapoint, ctx: HookContext) => this.#read(datapoint, ctx),
        "thing",
        attr,
        {
          name: "read",
        },
      );
    }
  }

  #read(datapoint: Datapoint, ctx: HookContext): null {
    if (ctx.record?.value(datapoint.attr) !== undefined) this.counts.seen++;
    return null;
  }
}
