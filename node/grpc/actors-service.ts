import type { Messenger } from "../../actors/messenger.ts";
import { wireToken } from "../../actors/sessions/wire-token.ts";
import type { ActorAddress } from "../../modules/behaviour.ts";
import { parseJsonText } from "../../modules/json-value.ts";
import type { Actors, ActorAddress as WireAddress } from "../../proto/gen/starling_pb.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Handlers } from "./service.ts";

/** Messages to actors by name. */
export function createActorsHandlers(messenger: Messenger): Handlers<typeof Actors> {
  return {
    send: async ({ message: { to, messageJson, idempotencyKey } }, { deadlineMs, signal, caller }) => {
      const call = { deadlineMs, signal, idempotencyKey, holder: caller.holder };
      const [address, message] = [addressOf(to), messageOf(messageJson)];
      // As a call that deletes needs it, too.
      if ("type" in address && deletes(message)) caller.need({ kind: "type", scope: "control", type: address.type });
      return { token: wireToken(await messenger.send(address, message, call)) };
    },
    ask: async ({ message: { to, messageJson, idempotencyKey } }, { deadlineMs, signal, caller }) => {
      const call = { deadlineMs, signal, idempotencyKey, holder: caller.holder };
      return { replyJson: await messenger.ask(addressOf(to), messageOf(messageJson), call) };
    },
  };
}

function addressOf(to: WireAddress | undefined): ActorAddress {
  const kind = to?.kind;
  switch (kind?.case) {
    case "behaviour":
      return { behaviour: kind.value.name, key: kind.value.key };
    case "singleton":
      return { singleton: kind.value };
    case "entity":
      return { type: kind.value.type, eid: kind.value.eid };
    default:
      throw new StarlingError("INVALID_ARGUMENT", "a message needs an address: a behaviour, a singleton or an entity");
  }
}

function deletes(message: unknown): boolean {
  return typeof message === "object" && message !== null && "delete" in message && message.delete !== false;
}

function messageOf(json: string): unknown {
  return json === "" ? null : parseJsonText(json);
}
