// What every part of the board shares.

import type { Done } from "./actions.ts";
import type { Operation } from "./load.ts";
import type { BoardMap } from "./map.ts";
import type { Store } from "./state.ts";

export interface Desk {
  store: Store;
  operations: Operation[];
  /** Whether this person may decide, and the board shows now, not an earlier instant. */
  edits: boolean;
  /** How decisions name this person: role and subject. */
  me: string;
  done: Done;
  /** The map is loaded after the lists; null until then. */
  map: BoardMap | null;
  /** Open an incident. */
  open(id: string | null): void;
  /** Look again at what is open. */
  refresh(): void;
  /** Look again at the queue of reports without a place. */
  unplaced(): void;
  /** Bring the map to the front, where the page shows one thing at a time. */
  showMap(): void;
}
