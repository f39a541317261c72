/** An attribute of a stored record. */
export interface StateField<V = unknown> {
  readonly v: V;
  readonly t1: number;
  readonly t2: number;
  readonly c: number;
  readonly n: number;
}

type ShortField = readonly [v: unknown, t1: number, n?: number, t2?: number, c?: number];

/** The attributes of a record's state in either of its forms (`actors/lane/entity-state.ts`); what begins with # stays as it is. */
export function fieldsOf<Field = StateField>(state: string): Record<string, Field> {
  const members = Object.entries(JSON.parse(state) as Record<string, object>);
  return Object.fromEntries(
    members.map(([attr, field]) => [attr, (Array.isArray(field) ? long(field) : field) as Field]),
  );
}

function long(field: unknown): StateField {
  const [v, t1, n = 1, t2 = t1, c = 1] = field as ShortField;
  return { v, t1, t2, c, n };
}
