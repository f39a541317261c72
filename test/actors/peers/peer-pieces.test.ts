import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { OwnedRecord } from "../../../actors/engine.ts";
import { type PartEvent, taskFrom } from "../../../actors/lane/part.ts";
import { checkTask } from "../../../modules/check-task.ts";
import { a, b, eidIn, model, PeerWorld, part, recordOf } from "./peer-world.ts";

const mib = 1024 * 1024;
const eid = eidIn(1);

let world: PeerWorld;

beforeEach(() => {
  world = new PeerWorld();
});

afterEach(() => expect(world.stop(), "timers that outlive their router").toBe(0));

describe("an answer that is larger than the credits of a link", () => {
  it("goes on where the link stopped, and the news behind it come, in order", async () => {
    const [one, two] = world.trio();
    two.local.records.set(eid, largeRecord(17));
    const told: PartEvent[] = [];
    const parts = [0, 1, 2].map((position) => part(1, position + 1, { position }));
    one.router.offer(parts, (news) => told.push(...news));
    await world.settle();
    limitLinks();
    const reading = track(one.router.get("host", eid, null));
    // The question, then the first piece.
    await bring();
    await bring();
    world.net.sent = [];
    const { tellDurable, tellProcessed } = two.local;
    const changes = [() => tellDurable(0), () => tellDurable(1), () => tellProcessed(0), () => tellDurable(2)];
    for (let round = 0; round < 20; round++) {
      changes.shift()?.();
      await bring();
    }
    expect(reading.record?.view.value("free")).toEqual(textsOf(17));
    const pieces = world.net.sent.filter(({ from, bytes }) => from === b && bytes > mib);
    expect(pieces.length, "pieces behind the first, each once").toBe(4);
    expect(told.map(({ position, kind }) => `${position} ${kind}`)).toEqual([
      "0 durable",
      "1 durable",
      "2 durable",
      "0 processed",
    ]);
    tellProcessed(1);
    await bring();
    await bring();
    expect(told.at(-1)).toMatchObject({ position: 1, kind: "processed" });
  });

  it("comes although offers would take all room there is, and they come between its pieces, in order", async () => {
    const [one, two] = world.trio();
    two.local.records.set(eid, largeRecord(17));
    const datapoints = [{ attr: "note", v: "n".repeat(900_000) }];
    const tasks = [taskFrom(checkTask(model, { type: "host", eid: eidIn(0), datapoints }), null)];
    let number = 0;
    const offer = (): void => two.router.offer([part(0, ++number, { tasks, bytes: 900_000 })], () => {});
    await world.settle();
    limitLinks();
    for (let i = 0; i < 5; i++) offer();
    const reading = track(one.router.get("host", eid, null));
    for (let round = 0; round < 200 && reading.record === null; round++) {
      // More than what arrives.
      offer();
      offer();
      await bring(1);
    }
    expect(reading.record?.view.value("free")).toEqual(textsOf(17));
    const numbers = one.local.offers.flat().map((each) => each.number);
    expect(numbers.length).toBeGreaterThan(6);
    expect(numbers).toEqual([...numbers].sort((x, y) => x - y));
  });

  it("is sent no more when its link breaks, and the next link brings what is asked anew", async () => {
    const [one, two] = world.trio();
    two.local.records.set(eid, largeRecord(9));
    await world.settle();
    limitLinks();
    const reading = track(one.router.get("host", eid, null));
    await bring();
    await bring();
    world.net.down(a, b);
    world.net.up(a, b);
    for (let round = 0; round < 20; round++) await bring();
    expect(reading.record?.view.value("free")).toEqual(textsOf(9));
  });
});

describe("answers of one turn", () => {
  it("travel in several messages when they are large", async () => {
    const [one, two] = world.trio();
    const eids = Array.from({ length: 12 }, (_, index) => eidIn(1, index + 1));
    for (const each of eids) two.local.records.set(each, recordOf(each, stateOf(["r".repeat(400_000)])));
    const found = await world.within(Promise.all(eids.map((each) => one.router.get("host", each, null))));
    expect(found.map((record) => record?.view.eid)).toEqual(eids);
    expect(Math.max(...world.net.sent.map(({ bytes }) => bytes))).toBeLessThan(1.2 * mib);
  });

  it("say TOO_LARGE of a record that no client could be sent", async () => {
    const [one, two] = world.trio();
    two.local.records.set(eid, largeRecord(65));
    await expect(world.within(one.router.get("host", eid, null))).rejects.toMatchObject({ code: "TOO_LARGE" });
  });
});

/** Room for one piece at a time, and messages that arrive when they are brought. */
function limitLinks(): void {
  world.net.creditBytes = 5 * mib;
  world.net.holdBack = true;
}

/** What is on its way arrives, or the oldest of it, and time goes on until the link is tried again. */
async function bring(count?: number): Promise<void> {
  world.net.releaseHeld(count);
  await world.settle();
  await world.clock.advance(5);
}

function track(reading: Promise<OwnedRecord | null>): { record: OwnedRecord | null } {
  const found: { record: OwnedRecord | null } = { record: null };
  void reading.then(
    (record) => (found.record = record),
    () => {},
  );
  return found;
}

function largeRecord(values: number): OwnedRecord {
  return recordOf(eid, stateOf(textsOf(values)));
}

function textsOf(values: number): string[] {
  return Array.from({ length: values }, (_, index) => String.fromCharCode(48 + index).repeat(mib));
}

function stateOf(texts: readonly string[]): string {
  return `{"free":{"v":${JSON.stringify(texts)},"t1":1,"t2":1,"c":1,"n":1}}`;
}
