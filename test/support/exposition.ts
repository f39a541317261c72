/** A sample of Prometheus' text format. */
export interface ReadSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A metric with all its samples, in their order. */
export interface ReadMetric {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: readonly ReadSample[];
}

const types = ["counter", "gauge", "histogram"];

/**
 * Reads Prometheus' text format, version 0.0.4, and refuses what a server would take with a grumble: samples without a head,
 * metrics in two places, doubled time series, bad names, histograms whose buckets do not add up.
 */
export function readExposition(text: string): ReadMetric[] {
  if (!text.endsWith("\n")) throw new Error("the last line does not end");
  const metrics: (ReadMetric & { readonly samples: ReadSample[] })[] = [];
  const heads: string[] = [];
  const series = new Set<string>();
  for (const line of text.split("\n").filter((one) => one !== "")) {
    const help = /^# HELP ([a-zA-Z_][a-zA-Z0-9_]*) (.+)$/.exec(line);
    const type = /^# TYPE ([a-zA-Z_][a-zA-Z0-9_]*) (\w+)$/.exec(line);
    if (help !== null) heads.push(help[1] ?? "", help[2] ?? "");
    else if (type !== null) {
      const [name = "", words = ""] = heads.splice(0);
      if (name !== type[1]) throw new Error(`a type without its help: ${line}`);
      if (!types.includes(type[2] ?? "")) throw new Error(`no such type: ${line}`);
      if (metrics.some((known) => known.name === name)) throw new Error(`a second time: ${line}`);
      metrics.push({ name, type: type[2] ?? "", help: words, samples: [] });
    } else {
      const metric = metrics.at(-1);
      const sample = readSample(line);
      if (metric === undefined || !namesOf(metric).includes(sample.name)) throw new Error(`out of its place: ${line}`);
      const key = `${sample.name}${JSON.stringify(Object.entries(sample.labels).sort())}`;
      if (series.has(key)) throw new Error(`a second time: ${line}`);
      series.add(key);
      metric.samples.push(sample);
    }
  }
  for (const metric of metrics) check(metric);
  return metrics;
}

function namesOf({ name, type }: ReadMetric): string[] {
  return type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name];
}

function readSample(line: string): ReadSample {
  const match = /^([a-zA-Z_][a-zA-Z0-9_]*)(?:\{(.*)\})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|\+Inf|NaN)$/.exec(line);
  if (match === null) throw new Error(`no sample: ${line}`);
  const labels: Record<string, string> = {};
  let rest = match[2] ?? "";
  while (rest !== "") {
    const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)/.exec(rest);
    if (label === null || (label[1] ?? "") in labels) throw new Error(`no labels: ${line}`);
    labels[label[1] ?? ""] = label[2] ?? "";
    rest = rest.slice(label[0].length);
  }
  return { name: match[1] ?? "", labels, value: Number(match[3]?.replace("+Inf", "Infinity")) };
}

function check(metric: ReadMetric): void {
  const { name, type, samples } = metric;
  if ((type === "counter") !== name.endsWith("_total")) throw new Error(`${name} is a ${type}`);
  if (samples.some(({ value }) => Number.isNaN(value) || (type !== "gauge" && value < 0)))
    throw new Error(`${name}: bad value`);
  if (type !== "histogram") return;
  const groups = new Map<string, ReadSample[]>();
  for (const sample of samples) {
    const { le: _, ...labels } = sample.labels;
    groups.set(JSON.stringify(labels), [...(groups.get(JSON.stringify(labels)) ?? []), sample]);
  }
  for (const group of groups.values()) checkHistogram(name, group);
}

function checkHistogram(name: string, group: readonly ReadSample[]): void {
  const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
  const bounds = buckets.map(({ labels }) => Number(labels.le?.replace("+Inf", "Infinity")));
  const counts = buckets.map(({ value }) => value);
  const isAscending = (list: readonly number[]) =>
    list.every((value, index) => index === 0 || value >= (list[index - 1] ?? 0));
  const total = group.find((sample) => sample.name === `${name}_count`)?.value;
  const hasSum = group.some((sample) => sample.name === `${name}_sum`);
  if (!isAscending(bounds) || new Set(bounds).size < bounds.length) throw new Error(`${name}: bounds out of order`);
  if (!isAscending(counts) || bounds.at(-1) !== Number.POSITIVE_INFINITY || counts.at(-1) !== total || !hasSum) {
    throw new Error(`${name}: buckets do not add up`);
  }
}
