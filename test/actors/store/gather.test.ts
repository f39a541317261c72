import { describe, expect, it } from "vitest";
import { createGather } from "../../../actors/store/gather.ts";
import { StarlingError } from "../../../proto/starling-error.ts";

/** A gather whose groups end when they are told to. */
function gathered(options: { readonly groupsMax?: number; readonly weightMax?: number } = {}) {
  const groups: { readonly items: readonly number[]; readonly end: (error?: unknown) => void }[] = [];
  const call = createGather<number, string>({
    run: (items) =>
      new Promise((resolve, reject) => {
        const end = (error?: unknown) => (error === undefined ? resolve(items.map(String)) : reject(error));
        groups.push({ items, end });
      }),
    keyOf: (item) => (item < 0 ? "negative" : "positive"),
    weightOf: Math.abs,
    groupsMax: options.groupsMax ?? 1,
    weightMax: options.weightMax ?? 100,
  });
  const told = () => groups.map(({ items }) => items.join(" "));
  return { call, groups, told };
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

describe("calls that are gathered", () => {
  it("go at once, and those that come meanwhile go together, each with its own answer", async () => {
    const { call, groups, told } = gathered();
    const first = call(1);
    await turn();
    const others = [call(2), call(3)];
    await turn();
    expect(told()).toEqual(["1"]);
    groups[0]?.end();
    expect(await first).toBe("1");
    await turn();
    expect(told()).toEqual(["1", "2 3"]);
    groups[1]?.end();
    expect(await Promise.all(others)).toEqual(["2", "3"]);
  });

  it("go together only within a weight and with those of their key; what is too heavy goes alone", async () => {
    const { call, groups, told } = gathered({ weightMax: 10 });
    const calls = [call(4), call(-3), call(5), call(11), call(2), call(1)];
    for (let group = 0; group < 4; group++) {
      await turn();
      groups[group]?.end();
    }
    expect(told()).toEqual(["4 5 1", "-3", "11", "2"]);
    expect(await Promise.all(calls)).toEqual(["4", "-3", "5", "11", "2", "1"]);
  });

  it("are so many groups at once", async () => {
    const { call, told } = gathered({ groupsMax: 2, weightMax: 1 });
    for (let item = 1; item <= 4; item++) void call(item);
    await turn();
    expect(told()).toEqual(["1", "2"]);
  });

  it("go one by one when the data of one are refused, and fail together otherwise", async () => {
    const { call, groups, told } = gathered();
    const outcomes = [1, 2, 3].map((item) => call(item).catch((error: StarlingError) => error.code));
    await turn();
    groups[0]?.end(new StarlingError("STORE_REFUSED", "bad"));
    for (let group = 1; group <= 3; group++) {
      await turn();
      groups[group]?.end(group === 2 ? new StarlingError("STORE_REFUSED", "bad") : undefined);
    }
    expect(await Promise.all(outcomes)).toEqual(["1", "STORE_REFUSED", "3"]);
    expect(told()).toEqual(["1 2 3", "1", "2", "3"]);
    const failing = [4, 5].map((item) => call(item).catch((error: StarlingError) => error.code));
    await turn();
    groups[4]?.end(new StarlingError("STORE", "gone"));
    expect(await Promise.all(failing)).toEqual(["STORE", "STORE"]);
    expect(told()).toHaveLength(5);
  });
});
