import { observe, type Piece } from "./history-run.ts";

/** Observations by attribute. */
export type Observations = Map<string, Piece[]>;

/** Reads the lines that a flush added to a history (`writeTail` in line.ts) into `found`. */
export function readObservations(body: string, found: Observations): void {
  for (const line of body.split("\n")) {
    const [attr = "", , t1 = "", t2 = "", c = "1", json = "null"] = line.split("\t");
    if (attr === "") continue;
    const piece = observe(json, Number(t1), t2 === "" ? Number(t1) : Number(t2), Number(c));
    const pieces = found.get(attr);
    if (pieces === undefined) found.set(attr, [piece]);
    else pieces.push(piece);
  }
}
