import type { Eid, Value } from "./datapoint.ts";
import type { HookReach } from "./hook-path.ts";
import type { LinkedValue, SnapshotValue, SnapshotValues } from "./snapshot-hook.ts";

/*
 * What a correlation hook gets: copies of the values of its entity and, over the links on the hook's paths, of others. A hook
 * that fails or comes too late has changed nothing; of one that answers, what it changed is known exactly.
 *
 * 1. A copy is made when it is asked for, and an entity has one in a view, by whatever links it is reached: cycles too.
 * 2. `record` is there over the links of the hook's own paths, as far as these go, and not in what is enumerated: so values
 *    can be written as JSON although links form cycles.
 * 3. Values inside of values are frozen: a change is always an assignment to an attribute.
 */

/** The links that a hook's paths go over, from one entity on: by attribute. */
export type LinkTree = ReadonlyMap<string, LinkBranch>;

interface LinkBranch {
  /** Type of the target. */
  readonly target: string;
  readonly tree: LinkTree;
}

/** An entity of a run. Its values are never changed by a view. */
export interface LiveEntity {
  readonly values: SnapshotValues;
}

/** Finds an entity of the run by type and id; undefined: it has none. */
export type FindEntity<Entity extends LiveEntity> = (type: string, eid: Eid) => Entity | undefined;

/** One attribute that a hook set (or its confidence, `attr#c`); undefined: it took the value away. */
export interface LiveChange<Entity extends LiveEntity> {
  readonly entity: Entity;
  readonly name: string;
  readonly value: unknown;
}

/** The links of a hook's paths, those of both lists. */
export function planLinkTree({ dependsOn, mayChange }: HookReach): LinkTree {
  const root = new Map<string, { target: string; tree: Map<string, LinkBranch> }>();
  for (const { links } of [...dependsOn, ...mayChange]) {
    let at = root;
    for (const { attr, target } of links) {
      const branch = at.get(attr) ?? { target, tree: new Map() };
      at.set(attr, branch);
      at = branch.tree as typeof root;
    }
  }
  return root;
}

/** What one call of a hook sees. */
export class LinkedView<Entity extends LiveEntity> {
  readonly #find: FindEntity<Entity>;
  readonly #entity: Entity;
  readonly #root: Copy;
  /** Of the other entities; null: none was looked at. */
  #copies: Map<Entity, Copy> | null = null;

  constructor(entity: Entity, tree: LinkTree, find: FindEntity<Entity>) {
    this.#find = find;
    this.#entity = entity;
    this.#root = createCopy(entity);
    if (tree.size > 0) this.#extend(entity, this.#root, tree);
  }

  /** The values that the hook gets. */
  get values(): SnapshotValues {
    return this.#root.values;
  }

  /** What the hook changed. */
  changes(): LiveChange<Entity>[] {
    const changes: LiveChange<Entity>[] = [];
    findChanges(this.#entity, this.#root, changes);
    for (const [entity, copy] of this.#copies ?? []) findChanges(entity, copy, changes);
    return changes;
  }

  /** The copy of a link's target, whose own links are there as the branches say. */
  recordOf(type: string, eid: Eid, trees: readonly LinkTree[]): SnapshotValues | undefined {
    const entity = this.#find(type, eid);
    if (entity === undefined) return undefined;
    let copy: Copy | null = null;
    for (const tree of trees) copy = this.#open(entity, tree);
    return copy?.values;
  }

  #open(entity: Entity, tree: LinkTree): Copy {
    const copy = this.#copyOf(entity);
    if (tree.size > 0 && !copy.trees.includes(tree)) this.#extend(entity, copy, tree);
    return copy;
  }

  #copyOf(entity: Entity): Copy {
    if (entity === this.#entity) return this.#root;
    this.#copies ??= new Map();
    const known = this.#copies.get(entity);
    if (known !== undefined) return known;
    const copy = createCopy(entity);
    this.#copies.set(entity, copy);
    return copy;
  }

  #extend({ values }: Entity, copy: Copy, tree: LinkTree): void {
    copy.trees.push(tree);
    for (const [attr, branch] of tree) {
      const known = copy.sites.get(attr);
      if (known !== undefined) known.trees.push(branch.tree);
      // What the hook has set meanwhile stays.
      if (known !== undefined || values[attr] === undefined || copy.values[attr] !== values[attr]) continue;
      const trees = [branch.tree];
      const value = this.#link(values[attr], branch.target, trees);
      copy.sites.set(attr, { value, trees });
      copy.values[attr] = value;
    }
  }

  /** The same value with live links in it. */
  #link(value: SnapshotValue, target: string, trees: readonly LinkTree[]): SnapshotValue {
    if (Array.isArray(value)) {
      return Object.freeze(value.map((one: SnapshotValue) => this.#link(one, target, trees))) as readonly LinkedValue[];
    }
    return new LiveLink(this, target, value as LinkedValue, trees);
  }
}

interface Copy {
  readonly values: SnapshotValues;
  /** Links that have been made live, by attribute. */
  readonly sites: Map<string, Site>;
  readonly trees: LinkTree[];
}

function createCopy({ values }: LiveEntity): Copy {
  return { values: { ...values }, sites: new Map(), trees: [] };
}

function findChanges<Entity extends LiveEntity>(
  entity: Entity,
  { values, sites }: Copy,
  changes: LiveChange<Entity>[],
): void {
  for (const name in values) {
    const value = values[name];
    if (value === entity.values[name]) continue;
    const site = sites.get(name);
    if (site === undefined || site.value !== value) changes.push({ entity, name, value });
  }
  for (const name in entity.values) {
    if (!Object.hasOwn(values, name)) changes.push({ entity, name, value: undefined });
  }
}

interface Site {
  readonly value: SnapshotValue;
  /** Where hooks may go on from the targets. */
  readonly trees: LinkTree[];
}

class LiveLink implements LinkedValue {
  readonly eid: Eid;
  declare readonly data?: Value;
  readonly #view: LinkedView<LiveEntity>;
  readonly #target: string;
  readonly #trees: readonly LinkTree[];

  constructor(view: unknown, target: string, { eid, data }: LinkedValue, trees: readonly LinkTree[]) {
    this.eid = eid;
    if (data !== undefined) this.data = data;
    this.#view = view as LinkedView<LiveEntity>;
    this.#target = target;
    this.#trees = trees;
    Object.freeze(this);
  }

  get record(): SnapshotValues | undefined {
    return this.#view.recordOf(this.#target, this.eid, this.#trees);
  }
}

/** A value without records: what is stored of it. */
export function withoutRecords(value: unknown): unknown {
  if (Array.isArray(value)) return value.some(holdsRecord) ? value.map(withoutRecords) : value;
  if (!(value instanceof LiveLink)) return value;
  return value.data === undefined ? { eid: value.eid } : { eid: value.eid, data: value.data };
}

function holdsRecord(value: unknown): boolean {
  return value instanceof LiveLink || (Array.isArray(value) && value.some(holdsRecord));
}
