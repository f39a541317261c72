import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Clock } from "../../proto/clock.ts";
import { Watch, type WatchCreateRequestSchema, type WatchResponse } from "../../proto/gen/etcd_pb.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { EtcdConnection, EtcdStream } from "./etcd-connection.ts";

/*
 * A watch that never ends by itself: it gives hints, not events, so nothing has to be resumed.
 *
 * 1. Every beginning is a hint, the first one too: what changed before it was never seen.
 * 2. Silence is probed after `timeoutMs`; silence for as long again loses the watch.
 * 3. A lost watch, for whatever reason, begins anew after 0.1 to 1 s: the pause doubles until one has lasted.
 */
export interface EtcdWatchOptions {
  readonly connection: EtcdConnection;
  readonly range: Pick<MessageInitShape<typeof WatchCreateRequestSchema>, "key" | "rangeEnd">;
  readonly clock: Clock;
  readonly timeoutMs: number;
  readonly onHint: () => void;
  /** Every loss of the watch, with its reason. */
  readonly onProblem: (problem: StarlingError) => void;
}

const pauseMinMs = 100;
const pauseMaxMs = 1_000;

/** Starts at once. */
export class EtcdWatch {
  readonly #options: EtcdWatchOptions;
  #stream: EtcdStream<typeof Watch.method.watch> | null = null;
  #cancelTimer = () => {};
  #status: "open" | "paused" | "closed" = "paused";
  #openedAtMs = 0;
  #pauseMs = pauseMinMs;

  constructor(options: EtcdWatchOptions) {
    this.#options = options;
    this.#open();
  }

  /** No hint comes after it. Idempotent. */
  close(): void {
    this.#status = "closed";
    this.#cancelTimer();
    this.#stream?.cancel();
    this.#stream = null;
  }

  #open(): void {
    const { connection, clock, range, timeoutMs } = this.#options;
    this.#status = "open";
    this.#openedAtMs = clock.now();
    try {
      this.#stream = connection.open(Watch.method.watch, {
        onMessage: (response) => this.#onResponse(response),
        onEnd: (error) => this.#onLoss(error),
      });
    } catch (error) {
      return this.#onLoss(toStarlingError(error));
    }
    this.#stream.write({ requestUnion: { case: "createRequest", value: range } });
    this.#cancelTimer = clock.after(timeoutMs, () => this.#onSilence());
  }

  #onResponse(response: WatchResponse): void {
    const { clock, timeoutMs, onHint } = this.#options;
    if (response.canceled) {
      const reason = response.cancelReason || `compacted up to revision ${response.compactRevision}`;
      return this.#onLoss(new StarlingError("UNAVAILABLE", `etcd ended a watch: ${reason}`));
    }
    this.#cancelTimer();
    this.#cancelTimer = clock.after(timeoutMs, () => this.#probe());
    if (response.created || response.events.length > 0) onHint();
  }

  #probe(): void {
    const { clock, timeoutMs } = this.#options;
    this.#stream?.write({ requestUnion: { case: "progressRequest", value: {} } });
    this.#cancelTimer = clock.after(timeoutMs, () => this.#onSilence());
  }

  #onSilence(): void {
    this.#stream?.giveUp();
    this.#onLoss(new StarlingError("UNAVAILABLE", `etcd said nothing on a watch for ${this.#options.timeoutMs} ms`));
  }

  #onLoss(problem: StarlingError): void {
    if (this.#status !== "open") return;
    this.#status = "paused";
    this.#cancelTimer();
    this.#stream?.cancel();
    this.#stream = null;
    const { clock, onProblem } = this.#options;
    if (clock.now() - this.#openedAtMs > pauseMaxMs) this.#pauseMs = pauseMinMs;
    this.#cancelTimer = clock.after(this.#pauseMs, () => this.#open());
    this.#pauseMs = Math.min(this.#pauseMs * 2, pauseMaxMs);
    onProblem(problem);
  }
}
