import { setTimeout } from "node:timers/promises";
import {
  BaseModule,
  type CallbackRegistrar,
  type Datapoint,
  type DerivedTask,
  type Eid,
  type MessageAnswer,
  type MessageContext,
  type ModuleConfig,
  type PlatformConfig,
  type ScheduleRun,
  type Send,
} from "starling/modules";

interface Counter {
  readonly total: number;
}

interface Add {
  readonly add: number;
  readonly fail?: boolean;
  readonly tookMs?: number;
}

type Board = Readonly<Record<string, number>>;

/** Counters by key, a board of all of them, and a digest every second. */
export class Counting extends BaseModule {
  constructor(platformConfig: PlatformConfig, moduleConfig: ModuleConfig, registrar: CallbackRegistrar) {
    super(platformConfig, moduleConfig, registrar);
    registrar.behaviour<Counter, Add>("counter", { initial: () => ({ total: 0 }), receive: this.count, retries: 0 });
    registrar.behaviour<Board, Board | null>("board", { singleton: true, initial: () => ({}), receive: this.rank });
    registrar.registerOnNewAttrHook(this.visited, "page", "visit");
    registrar.schedulerRegister(this.digest, "* * * * * *", { where: "cluster", catchUp: "all" });
    registrar.schedulerRegister(this.beat, { second: "*" });
  }

  private async count(
    { total }: Counter,
    { add, fail, tookMs = 0 }: Add,
    { self }: MessageContext,
  ): Promise<MessageAnswer<Counter>> {
    if (fail === true) throw new Error("told to fail");
    if (tookMs > 0) await setTimeout(tookMs);
    const state = { total: total + add };
    return { state, reply: state, sends: [{ to: { singleton: "board" }, message: { [self]: state.total } }] };
  }

  /** A message without totals asks for the board. */
  private rank(board: Board, totals: Board | null): MessageAnswer<Board> {
    if (totals === null) return { reply: board };
    const state = { ...board, ...totals };
    return { state, reply: state };
  }

  private visited(eid: Eid, { v }: Datapoint): Send[] {
    return [{ to: { behaviour: "counter", key: String(eid) }, message: { add: Number(v) } }];
  }

  private digest({ scheduled }: ScheduleRun): DerivedTask[] {
    return [{ type: "page", eid: "digest", datapoints: [{ attr: "digest", v: scheduled, t1: scheduled }] }];
  }

  private async beat({ scheduled }: ScheduleRun): Promise<void> {
    await this.actors.send({ behaviour: "counter", key: "beat" }, { add: 1 }, { idempotencyKey: `beat ${scheduled}` });
  }
}
