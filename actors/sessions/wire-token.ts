import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TokenSchema } from "../../proto/gen/starling_pb.ts";
import type { LogPlace } from "../engine.ts";

/** A place in the log as the wire says it: 64-bit numbers are bigints there. */
export function wireToken(place: LogPlace): MessageInitShape<typeof TokenSchema> {
  return { shard: place.shard, epoch: BigInt(place.epoch), seq: BigInt(place.seq) };
}
