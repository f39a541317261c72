/*
 * Who opens a link says so in its first frame: a protobuf message in clear text, in which the name is field 5 of the hello.
 */

const nameTag = 0x2a;
const headMaxBytes = 16 * 1024;

/** Reads the chunks of one connection, in order, for the node of these that has opened it. Returns its name, once. */
export function identifySender(names: readonly string[]): (chunk: Buffer) => string | null {
  const marks = names.map((name) => ({ name, mark: Buffer.from([nameTag, name.length, ...Buffer.from(name)]) }));
  let head: Buffer | null = Buffer.alloc(0);
  return (chunk) => {
    if (head === null) return null;
    head = Buffer.concat([head, chunk]);
    const found = marks.find(({ mark }) => head?.includes(mark));
    if (found !== undefined || head.length > headMaxBytes) head = null;
    return found?.name ?? null;
  };
}
