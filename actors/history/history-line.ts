import { observe, type Piece } from "./history-run.ts";

/** Observations by attribute. */
export type Observations = Map<string, Piece[]>;

/** Reads the lines that a flush added to a history (`writeTail` in line.ts) into `found`. */
export function readObservations(body: string, found: Observations): void {
  for (let start = 0; start < body.length; ) {
    const newline = body.indexOf("\n", start);
    const end = newline < 0 ? body.length : newline;
    const attrEnd = body.indexOf("\t", start);
    const srcEnd = body.indexOf("\t", attrEnd + 1);
    const t1End = body.indexOf("\t", srcEnd + 1);
    const t2End = body.indexOf("\t", t1End + 1);
    const cEnd = body.indexOf("\t", t2End + 1);
    const attr = body.slice(start, attrEnd);
    const t1 = Number(body.slice(srcEnd + 1, t1End));
    const t2 = t2End === t1End + 1 ? t1 : Number(body.slice(t1End + 1, t2End));
    const c = cEnd === t2End + 1 ? 1 : Number(body.slice(t2End + 1, cEnd));
    const piece = observe(body.slice(cEnd + 1, end), t1, t2, c);
    const pieces = found.get(attr);
    if (pieces === undefined) found.set(attr, [piece]);
    else pieces.push(piece);
    start = end + 1;
  }
}
