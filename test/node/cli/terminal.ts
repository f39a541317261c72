import { Writable } from "node:stream";
import { createOutput, type TerminalStream } from "../../../node/cli/output.ts";
import { type ExitCode, runCommandLine } from "../../../node/cli/program.ts";

/** What one command line did. */
export interface Ran {
  readonly code: ExitCode;
  readonly out: string;
  readonly err: string;
}

export interface RunOptions {
  readonly stdin?: string;
  readonly env?: NodeJS.ProcessEnv;
  readonly signal?: AbortSignal;
  /** Called with each piece of the answer. */
  readonly onOut?: (text: string) => void;
}

/** Runs a command line in this process, with streams that keep what is written. */
export async function run(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const out = createSink(false, options.onOut);
  const err = createSink(false);
  const { env = {}, stdin = "", signal = new AbortController().signal } = options;
  const output = createOutput(out.stream, err.stream, env);
  const code = await runCommandLine(args, { output, env, stdin: onePiece(stdin), signal, onReload: () => () => {} });
  return { code, out: out.text(), err: err.text() };
}

/** A stream that keeps its text. */
export function createSink(
  isTTY: boolean,
  onText: (text: string) => void = () => undefined,
): { readonly stream: TerminalStream; text(): string } {
  const pieces: string[] = [];
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      pieces.push(chunk.toString("utf8"));
      onText(chunk.toString("utf8"));
      done();
    },
  });
  return { stream: Object.assign(stream, { isTTY }), text: () => pieces.join("") };
}

async function* onePiece(text: string): AsyncGenerator<Uint8Array> {
  yield new TextEncoder().encode(text);
}
