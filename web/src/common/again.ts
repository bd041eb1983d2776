// What a page loads only when it needs it, over a line that may go at that moment.

/** Loads, and where the line does not carry it tries again: when the browser is back online, or after a while. Any
 * other failure is ours and rises. */
export async function again<T>(load: () => Promise<T>): Promise<T> {
  for (let pause = 1_000; ; pause = Math.min(2 * pause, 30_000)) {
    try {
      return await load();
    } catch (error) {
      if (!lineGone(error)) throw error;
    }
    await new Promise((resolve) => {
      setTimeout(resolve, pause);
      addEventListener("online", resolve, { once: true });
    });
  }
}

/** Each browser has its own words for a file that did not come; all of them are a TypeError. */
export function lineGone(error: unknown): boolean {
  return error instanceof TypeError && /fetch|load failed|import|network/i.test(error.message);
}
