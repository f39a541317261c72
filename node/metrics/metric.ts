import type { Counters } from "../../actors/counters.ts";
import type { Engine, EngineStatus } from "../../actors/engine.ts";
import type { Histogram } from "../../actors/histogram.ts";
import type { GrpcLinks } from "../../cluster/links/grpc-links.ts";
import type { Membership } from "../../cluster/membership/membership.ts";
import type { Hook } from "../../modules/hook.ts";
import type { Model } from "../../modules/model.ts";
import type { ShardId } from "../../proto/ids.ts";
import type { Settings } from "../config/settings.ts";

/** One metric: its name, what it means, and how it is read when somebody asks. */
export interface Metric {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  readonly labels: readonly string[];
  read(scene: Scene): readonly Sample[];
}

export type Labels = Readonly<Record<string, string>>;

export interface Sample {
  readonly labels: Labels;
  readonly value: number | Histogram;
}

/** What metrics are read from. */
export interface MetricWorld {
  readonly counters: Counters;
  readonly settings: Settings;
  readonly loopDelay: Histogram;
  /** What the process says of itself. */
  readonly usage: () => ProcessUsage;
  /** Open dead letters by shard; null: not known. */
  readonly openLetters: (engine: Engine) => ReadonlyMap<ShardId, number> | null;
  readonly version: string;
  /** Null: the node is starting. */
  readonly node: NodeParts | null;
}

/** The parts of a node that serves. */
export interface NodeParts {
  readonly engine: Engine;
  readonly membership: Membership;
  readonly links: Pick<GrpcLinks, "pathOf" | "roundTripMsOf">;
  /** With the model by which they are counted. */
  readonly hooks: readonly Hook[];
  readonly model: Model;
  readonly clusterId: string;
}

export interface ProcessUsage {
  readonly cpuSeconds: number;
  readonly rssBytes: number;
  readonly heapUsedBytes: number;
  readonly heapTotalBytes: number;
  readonly externalBytes: number;
  /** Unix seconds. */
  readonly startedAt: number;
}

/** The world at the time of one reading. */
export interface Scene extends MetricWorld {
  readonly counts: Readonly<Record<string, number>>;
  readonly status: EngineStatus;
}

/** A count of the counter with this name. */
export function counter(name: string, help: string, of: string): Metric {
  return { name, help, type: "counter", labels: [], read: ({ counts }) => [{ labels: {}, value: counts[of] ?? 0 }] };
}

/** The counters whose names begin so: what follows is the label's value. */
export function countersBy(label: string, name: string, help: string, prefix: string): Metric {
  const read = ({ counts }: Scene): Sample[] =>
    Object.entries(counts)
      .filter(([known]) => known.startsWith(prefix))
      .map(([known, value]) => ({ labels: { [label]: known.slice(prefix.length) }, value }));
  return { name, help, type: "counter", labels: [label], read };
}

/** A histogram of the counters. */
export function histogram(name: string, help: string, of: string): Metric {
  const read = ({ counters }: Scene): Sample[] => [{ labels: {}, value: counters.histogram(of) }];
  return { name, help, type: "histogram", labels: [], read };
}

/** A number that goes up and down. */
export function gauge(name: string, help: string, value: (scene: Scene) => number): Metric {
  return { name, help, type: "gauge", labels: [], read: (scene) => [{ labels: {}, value: value(scene) }] };
}

/** The same by one label: its values and their numbers. */
export function gaugesBy(
  label: string,
  name: string,
  help: string,
  values: (scene: Scene) => Readonly<Record<string, number>>,
): Metric {
  const read = (scene: Scene): Sample[] =>
    Object.entries(values(scene)).map(([key, value]) => ({ labels: { [label]: key }, value }));
  return { name, help, type: "gauge", labels: [label], read };
}
