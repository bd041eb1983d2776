// Photographs are made small on the phone: at 50 kbit/s, 60 kB are ten seconds. Drawing them anew also leaves behind
// what the camera wrote into the file: when, where and with which phone it was taken.

import type { Photo } from "./store.ts";

const MOST_BYTES = 60_000;
/** Longest side in pixels, and quality; the first that is small enough is taken, else the last. */
const STEPS = [[1024, 0.6], [1024, 0.4], [800, 0.4], [640, 0.3], [480, 0.2]] as const;

/** A photograph small enough to send.
 *
 * @throws when the file is no picture that this browser can read.
 */
export async function shrink(file: Blob): Promise<Photo> {
  const picture = await createImageBitmap(file, { imageOrientation: "from-image" });
  const canvas = document.createElement("canvas");
  let blob: Blob | null = null;
  for (const [side, quality] of STEPS) {
    const scale = Math.min(1, side / Math.max(picture.width, picture.height));
    canvas.width = Math.max(1, Math.round(picture.width * scale));
    canvas.height = Math.max(1, Math.round(picture.height * scale));
    canvas.getContext("2d")?.drawImage(picture, 0, 0, canvas.width, canvas.height);
    blob = await encoded(canvas, "image/webp", quality);
    // A browser that cannot write WebP gives PNG, which is many times larger.
    if (blob?.type !== "image/webp") blob = await encoded(canvas, "image/jpeg", quality);
    if (blob !== null && blob.size <= MOST_BYTES) break;
  }
  picture.close();
  if (blob === null) throw new Error("the picture cannot be drawn");
  return { bytes: await blob.arrayBuffer(), type: blob.type };
}

function encoded(canvas: HTMLCanvasElement, type: string, quality: number): Promise<Blob | null> {
  return new Promise((resolve) => canvas.toBlob(resolve, type, quality));
}
