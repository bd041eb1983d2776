// What the server refused, in words for somebody who never heard of HTTP.

import { known, t } from "../common/i18n.ts";
import type { Item } from "./store.ts";

/** Why an item was not taken, and what that means for whoever sent it. */
export function refusal(item: Item): string {
  const problem = item.problem;
  const keys = [`problem.${item.kind}.${problem?.code}`, `problem.${problem?.code}`, `problem.${item.kind}`, "problem"];
  return t(keys.find(known) ?? "problem", { detail: problem?.detail ?? "" });
}
