import type { LooseDatapoint } from "../../modules/datapoint.ts";

/** How many datapoints each attribute of each entity must have in the end, by `type\teid\tattr`. */
export class FlightsTally {
  readonly counts = new Map<string, number>();
  readonly #airports = new Set<string>();

  addAirports(datapoints: readonly LooseDatapoint[]): void {
    for (const datapoint of datapoints) {
      this.#airports.add(String(datapoint.eid));
      this.#count(datapoint);
    }
  }

  /** The module refuses routes whose airports it does not know, describes the others, and derives two of each delay. */
  add(datapoint: LooseDatapoint): void {
    const { type, eid, attr } = datapoint;
    if (type !== "route") return this.#count(datapoint);
    const [origin = "", destination = ""] = String(eid).split("-");
    if (!this.#airports.has(origin) || !this.#airports.has(destination)) return;
    this.#count(datapoint);
    if (attr === "origin") {
      this.#count({ type, eid, attr: "description" });
      this.#count({ type, eid, attr: "distance_km" });
    }
    if (attr !== "delay") return;
    this.#count({ type, eid, attr: "delay_class" });
    this.#count({ type: "airport", eid: destination, attr: "arrival_delay" });
  }

  #count({ type, eid, attr }: Pick<LooseDatapoint, "type" | "eid" | "attr">): void {
    const key = `${type}\t${eid}\t${attr}`;
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
  }
}
