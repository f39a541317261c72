import { BaseModule, type Datapoint, type Eid } from "starling/modules";

const everyMs = 1000;
const blockedMs = 500;

/** Stops the whole process for half a second, once a second: a synchronous hook as it should not be. */
export class Blocker extends BaseModule {
  readonly #cell = new Int32Array(new SharedArrayBuffer(4));
  #lastMs = 0;

  constructor(...args: ConstructorParameters<typeof BaseModule>) {
    super(...args);
    const [, , registrar] = args;
    const block = (_eid: Eid, _datapoint: Datapoint): null => {
      if (performance.now() - this.#lastMs >= everyMs) {
        this.#lastMs = performance.now();
        Atomics.wait(this.#cell, 0, 0, blockedMs);
      }
      return null;
    };
    for (const attr of ["p_int", "o_level", "o_count"]) {
      registrar.registerOnNewAttrHook(block, "thing", attr, { name: "block" });
    }
  }
}
