import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Coordinator, LeaseId, Write } from "../../cluster/coordinator.ts";
import type { Clock } from "../../proto/clock.ts";

/** Keys that live as long as a test file, and ways to them. */
export interface CoordinatorBed {
  /** What the leases and deadlines go by. */
  readonly clock: Clock;
  /** Of a call. */
  readonly timeoutMs: number;
  /** How many hints a watch gives when it begins. */
  readonly hintsAtStart: number;
  /** One more caller. The bed closes it. */
  open(): Coordinator;
  /** Lets time pass until the condition holds; rejects when it never does. */
  until(condition: () => boolean | Promise<boolean>): Promise<void>;
  /** From now on no call is answered, until `speak`. */
  silence(): Promise<void>;
  speak(): void;
  close(): Promise<void>;
}

/** What every coordinator holds to. */
export function coordinatorContract(name: string, openBed: () => Promise<CoordinatorBed>): void {
  describe(`coordinator: ${name}`, () => {
    let bed: CoordinatorBed;
    let coordinator: Coordinator;
    let tests = 0;

    beforeAll(async () => {
      bed = await openBed();
      coordinator = bed.open();
    });
    afterAll(() => bed?.close());

    /** A prefix that no other test has. */
    const fresh = (): string => `contract/${String(tests++).padStart(3, "0")}/`;
    const put = (key: string, value: string, lease: LeaseId | null = null): Write => ({
      kind: "put",
      key,
      value,
      lease,
    });
    const valuesOf = async (prefix: string): Promise<Record<string, string>> => {
      const { entries } = await coordinator.list(prefix);
      return Object.fromEntries(entries.map(({ key, value }) => [key.slice(prefix.length), value]));
    };
    const isGone = async (key: string): Promise<boolean> => (await coordinator.list(key)).entries.length === 0;

    describe("identity", () => {
      it("is the same for all callers", async () => {
        const identity = await coordinator.identity();
        expect(identity).not.toBe("");
        expect(await bed.open().identity()).toBe(identity);
      });
    });

    describe("leases", () => {
      it("lapse with their keys, after two seconds at the earliest", async () => {
        const prefix = fresh();
        const before = bed.clock.now();
        const lease = await coordinator.grant(1);
        await coordinator.commit([], [put(`${prefix}a`, "1", lease), put(`${prefix}b`, "2")]);
        expect((await coordinator.list(prefix)).entries.map((entry) => entry.lease)).toEqual([lease, null]);
        await bed.until(() => isGone(`${prefix}a`));
        expect(bed.clock.now() - before).toBeGreaterThanOrEqual(2_000);
        expect(await valuesOf(prefix)).toEqual({ b: "2" });
      });

      it("are granted for whole seconds, rounded up", async () => {
        const prefix = fresh();
        const before = bed.clock.now();
        const lease = await coordinator.grant(2_001);
        await coordinator.commit([], [put(prefix, "1", lease)]);
        await bed.until(() => isGone(prefix));
        expect(bed.clock.now() - before).toBeGreaterThanOrEqual(3_000);
      });

      it("live on while they are kept alive", async () => {
        const prefix = fresh();
        const kept = await coordinator.grant(2_000);
        const left = await coordinator.grant(2_000);
        await coordinator.commit([], [put(`${prefix}kept`, "1", kept), put(`${prefix}left`, "2", left)]);
        await bed.until(async () => {
          await coordinator.keepAlive(kept);
          return isGone(`${prefix}left`);
        });
        await coordinator.keepAlive(kept);
        expect(await valuesOf(prefix)).toEqual({ kept: "1" });
      });

      it("that have lapsed cannot be kept alive", async () => {
        const prefix = fresh();
        const lease = await coordinator.grant(2_000);
        await coordinator.commit([], [put(prefix, "1", lease)]);
        await bed.until(() => isGone(prefix));
        await expect(coordinator.keepAlive(lease)).rejects.toMatchObject({ code: "NOT_FOUND" });
        await expect(coordinator.keepAlive("999999999")).rejects.toMatchObject({ code: "NOT_FOUND" });
      });

      it("take their keys with them when they are revoked, also a second time", async () => {
        const prefix = fresh();
        const lease = await coordinator.grant(60_000);
        await coordinator.commit([], [put(`${prefix}a`, "1", lease), put(`${prefix}b`, "2", lease)]);
        await coordinator.revoke(lease);
        expect(await valuesOf(prefix)).toEqual({});
        await coordinator.revoke(lease);
        await expect(coordinator.keepAlive(lease)).rejects.toMatchObject({ code: "NOT_FOUND" });
      });

      it("let go of a key that is written without them or under another one", async () => {
        const prefix = fresh();
        const [first, second] = [await coordinator.grant(60_000), await coordinator.grant(60_000)];
        const keys = ["a", "b", "c"].map((key) => `${prefix}${key}`);
        await coordinator.commit(
          [],
          keys.map((key) => put(key, "1", first)),
        );
        await coordinator.commit([], [put(`${prefix}a`, "2"), put(`${prefix}b`, "2", second)]);
        await coordinator.revoke(first);
        expect(await valuesOf(prefix)).toEqual({ a: "2", b: "2" });
        await coordinator.revoke(second);
        expect(await valuesOf(prefix)).toEqual({ a: "2" });
      });

      it("that are gone take no keys, and nothing of the commit happens", async () => {
        const prefix = fresh();
        const lease = await coordinator.grant(60_000);
        await coordinator.revoke(lease);
        const writes = [put(`${prefix}a`, "1"), put(`${prefix}b`, "2", lease)];
        await expect(coordinator.commit([], writes)).rejects.toMatchObject({ code: "NOT_FOUND" });
        await expect(coordinator.commit([], [put(`${prefix}a`, "1", "0")])).rejects.toMatchObject({
          code: "NOT_FOUND",
        });
        expect(await valuesOf(prefix)).toEqual({});
        const conditions = [{ key: `${prefix}a`, revision: 7 }];
        expect(await coordinator.commit(conditions, writes)).toMatchObject({ done: false });
      });
    });

    describe("commit", () => {
      it("creates what is not there, once", async () => {
        const key = fresh();
        const absent = [{ key, revision: 0 }];
        const first = await coordinator.commit(absent, [put(key, "first")]);
        expect(first.done).toBe(true);
        expect(await coordinator.commit(absent, [put(key, "second")])).toEqual({
          done: false,
          revision: first.revision,
        });
        const { entries } = await coordinator.list(key);
        expect(entries).toEqual([{ key, value: "first", revision: first.revision, lease: null }]);
      });

      it("changes what is as it was read, and nothing else", async () => {
        const key = fresh();
        const { revision } = await coordinator.commit([], [put(key, "1")]);
        const next = await coordinator.commit([{ key, revision }], [put(key, "2")]);
        expect(next).toMatchObject({ done: true });
        expect(next.revision).toBeGreaterThan(revision);
        expect(await coordinator.commit([{ key, revision }], [put(key, "3")])).toMatchObject({ done: false });
        expect(await valuesOf(key)).toEqual({ "": "2" });
      });

      it("lets exactly one of many rivals win", async () => {
        const key = fresh();
        const rivals = Array.from({ length: 20 }, (_, index) => ({ rival: bed.open(), value: String(index) }));
        const results = await Promise.all(
          rivals.map(async ({ rival, value }) => {
            const { done } = await rival.commit([{ key, revision: 0 }], [put(key, value)]);
            return done ? value : null;
          }),
        );
        const winners = results.filter((value) => value !== null);
        expect(winners).toHaveLength(1);
        expect(await valuesOf(key)).toEqual({ "": winners[0] });
      });

      it("does all or nothing", async () => {
        const prefix = fresh();
        const [a, b, c] = [`${prefix}a`, `${prefix}b`, `${prefix}c`];
        const { revision } = await coordinator.commit([], [put(a, "1"), put(b, "1")]);
        const writes: Write[] = [put(a, "2"), { kind: "delete", key: b }, put(c, "2")];
        const stale = [
          { key: a, revision },
          { key: b, revision: revision + 1 },
        ];
        expect(await coordinator.commit(stale, writes)).toMatchObject({ done: false });
        expect(await valuesOf(prefix)).toEqual({ a: "1", b: "1" });
        const right = stale.map(({ key }) => ({ key, revision }));
        const done = await coordinator.commit(right, writes);
        expect(done.done).toBe(true);
        expect(await valuesOf(prefix)).toEqual({ a: "2", c: "2" });
        const { entries } = await coordinator.list(prefix);
        expect(entries.map((entry) => entry.revision)).toEqual([done.revision, done.revision]);
      });

      it("deletes; what was deleted can be created again", async () => {
        const key = fresh();
        const { revision } = await coordinator.commit([], [put(key, "1")]);
        const deletion = await coordinator.commit([{ key, revision }], [{ kind: "delete", key }]);
        expect(deletion.done).toBe(true);
        expect(deletion.revision).toBeGreaterThan(revision);
        expect(await isGone(key)).toBe(true);
        expect(await coordinator.commit([], [{ kind: "delete", key }])).toEqual(deletion);
        expect(await coordinator.commit([{ key, revision: 0 }], [put(key, "2")])).toMatchObject({ done: true });
      });

      it("without writes tells whether the conditions hold", async () => {
        const key = fresh();
        const { revision } = await coordinator.commit([], [put(key, "1")]);
        expect(await coordinator.commit([{ key, revision }], [])).toEqual({ done: true, revision });
        expect(await coordinator.commit([{ key, revision: 0 }], [])).toEqual({ done: false, revision });
      });

      it("that writes a key twice is refused whole", async () => {
        const key = fresh();
        await expect(coordinator.commit([], [put(key, "1"), put(key, "2")])).rejects.toMatchObject({
          code: "INTERNAL",
        });
        expect(await isGone(key)).toBe(true);
      });
    });

    describe("list", () => {
      it("is in order, and holds the prefix's keys alone", async () => {
        const prefix = fresh();
        const keys = ["a/y", "a/x", "a0", "a", "a/x/1", "b/1", "a/ü", "a."];
        await coordinator.commit(
          [],
          keys.map((key) => put(`${prefix}${key}`, `value of ${key}`)),
        );
        expect(Object.keys(await valuesOf(`${prefix}a/`))).toEqual(["x", "x/1", "y", "ü"]);
        expect(await valuesOf(`${prefix}a/ü`)).toEqual({ "": "value of a/ü" });
        const all = (await coordinator.list("")).entries.map(({ key }) => key);
        expect(all).toEqual(expect.arrayContaining(keys.map((key) => `${prefix}${key}`)));
        expect(all).toEqual([...all].sort());
      });

      it("is complete when it is long", async () => {
        const prefix = fresh();
        const value = "x".repeat(10_000);
        for (let page = 0; page < 10; page++) {
          const writes = Array.from({ length: 60 }, (_, index) => put(`${prefix}${page}/${index}`, value));
          await coordinator.commit([], writes);
        }
        const { entries } = await coordinator.list(prefix);
        expect(entries).toHaveLength(600);
        expect(entries.every((entry) => entry.value === value)).toBe(true);
      });

      it("is of a revision that grows with every change", async () => {
        const prefix = fresh();
        const before = await coordinator.list(prefix);
        const { revision } = await coordinator.commit([], [put(`${prefix}a`, "1")]);
        const after = await bed.open().list(prefix);
        expect(revision).toBeGreaterThan(before.revision);
        expect(after.revision).toBe(revision);
      });
    });

    describe("watch", () => {
      it("hints at what is put, deleted and lapses", async () => {
        const prefix = fresh();
        let hints = 0;
        const stop = bed.open().watch(prefix, () => {
          hints += 1;
        });
        const hinted = async (work: () => Promise<unknown>) => {
          const before = hints;
          await work();
          await bed.until(() => hints > before);
        };
        await bed.until(() => hints === bed.hintsAtStart);
        await hinted(() => coordinator.commit([], [put(`${prefix}a`, "1")]));
        await hinted(() => coordinator.commit([], [put(`${prefix}a`, "2")]));
        await hinted(() => coordinator.commit([], [{ kind: "delete", key: `${prefix}a` }]));
        const lease = await coordinator.grant(2_000);
        await hinted(() => coordinator.commit([], [put(`${prefix}b`, "1", lease)]));
        await hinted(() => bed.until(() => isGone(`${prefix}b`)));
        stop();
        stop();
      });

      it("ends with its unsubscribe, and no other with it", async () => {
        const prefix = fresh();
        const caller = bed.open();
        const hints = { ended: 0, other: 0 };
        const stop = caller.watch(prefix, () => {
          hints.ended += 1;
        });
        caller.watch(prefix, () => {
          hints.other += 1;
        });
        await bed.until(() => hints.ended + hints.other === 2 * bed.hintsAtStart);
        stop();
        const { ended } = hints;
        await coordinator.commit([], [put(prefix, "1")]);
        await bed.until(() => hints.other > bed.hintsAtStart);
        expect(hints.ended).toBe(ended);
      });
    });

    describe("calls", () => {
      it("end within their deadline when nobody answers", async () => {
        const key = fresh();
        const lease = await coordinator.grant(60_000);
        await bed.silence();
        const before = bed.clock.now();
        const results: { readonly code: string; readonly afterMs: number }[] = [];
        const calls = [
          coordinator.identity(),
          coordinator.grant(2_000),
          coordinator.keepAlive(lease),
          coordinator.revoke(lease),
          coordinator.commit([], [put(key, "1")]),
          coordinator.list(key),
        ];
        for (const call of calls) {
          const note = (code: string) => results.push({ code, afterMs: bed.clock.now() - before });
          call.then(
            () => note("answered"),
            (error: { readonly code: string }) => note(error.code),
          );
        }
        try {
          await bed.until(() => results.length === calls.length);
        } finally {
          bed.speak();
        }
        expect(results.map(({ code }) => code)).toEqual(calls.map(() => "UNAVAILABLE"));
        const latest = Math.max(...results.map(({ afterMs }) => afterMs));
        expect(latest).toBeLessThan(bed.timeoutMs + 500);
        await bed.until(() =>
          coordinator.list(key).then(
            () => true,
            () => false,
          ),
        );
      });

      it("of a closed coordinator are refused; its keys stay", async () => {
        const key = fresh();
        const closed = bed.open();
        const lease = await closed.grant(60_000);
        await closed.commit([], [put(key, "1", lease)]);
        await closed.close();
        await closed.close();
        await expect(closed.list(key)).rejects.toMatchObject({ code: "UNAVAILABLE" });
        await expect(closed.commit([], [])).rejects.toMatchObject({ code: "UNAVAILABLE" });
        expect(await valuesOf(key)).toEqual({ "": "1" });
      });
    });
  });
}
