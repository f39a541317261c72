import {
  BaseModule,
  type CallbackRegistrar,
  type Datapoint,
  type DerivedTask,
  type Eid,
  type ModuleConfig,
  type PlatformConfig,
} from "starling/modules";
import { createFanoutTargets, derivedOrdinal, type FanoutMode, type FanoutTargets } from "../fanout-targets.ts";
import { epochMs, thingAttributes } from "../things.ts";

/** Derives one datapoint for a mirror from every datapoint of a thing. */
export class Deriver extends BaseModule {
  declare private targets: FanoutTargets;

  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    thingAttributes.forEach((attr, attribute) => {
      const derive = (eid: Eid, _: Datapoint) => this.derive(Number(String(eid).slice("thing-".length)), attribute);
      registrar.registerOnNewAttrHook(derive, "thing", attr, { name: "derive" });
    });
  }

  override loadConfig(_config: PlatformConfig, moduleConfig: ModuleConfig): void {
    this.targets = createFanoutTargets(moduleConfig.mode as FanoutMode, Number(moduleConfig.things));
  }

  private derive(thing: number, attribute: number): DerivedTask[] {
    const v = derivedOrdinal(thing, attribute);
    const at = epochMs + v;
    const eid = `mirror-${this.targets.targetOf(thing)}`;
    return [{ type: "mirror", eid, datapoints: [{ attr: "o_seen", v, t1: at, t2: at, src: "bench" }] }];
  }
}
