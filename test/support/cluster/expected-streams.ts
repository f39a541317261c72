/*
 * What a load has to leave behind, said without a node. A stream is what one source says in one attribute of one entity: the
 * numbers in it come in the order of sending, whatever happens meanwhile.
 */

/** How many numbers were sent for a probe, and by which session: 1, 2, 3, … */
export interface SentProbe {
  readonly eid: string;
  readonly session: string;
  readonly count: number;
}

/** The numbers of a stream: `step`, 2 × `step`, … up to `last`. */
export interface ExpectedStream {
  readonly step: number;
  readonly last: number;
}

/** A datapoint by its place in the model. */
export interface StreamPlace {
  readonly type: string;
  readonly eid: string;
  readonly attr: string;
  readonly src: string;
}

/** Tells a stream from every other one. */
export function streamOf({ type, eid, attr, src }: StreamPlace): string {
  return `${type} ${eid} ${attr} of ${src}`;
}

/** Every stream that has to be there, by {@link streamOf}; as `cluster-config/code/deriver.ts` derives them. */
export function expectStreams(sent: readonly SentProbe[]): Map<string, ExpectedStream> {
  const streams = new Map<string, ExpectedStream>();
  const expect = (place: StreamPlace, step: number, count: number): void => {
    if (count >= step) streams.set(streamOf(place), { step, last: count - (count % step) });
  };
  for (const { eid, session, count } of sent) {
    const number = Number(eid.slice(1));
    expect({ type: "probe", eid, attr: "number", src: session }, 1, count);
    expect({ type: "probe", eid, attr: "echo", src: eid }, 2, count);
    expect({ type: "mirror", eid: `m${number % 100}`, attr: "seen", src: eid }, 1, count);
    expect({ type: "total", eid: `t${number % 20}`, attr: "fifth", src: eid }, 5, count);
  }
  return streams;
}
