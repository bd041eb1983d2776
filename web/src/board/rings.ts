// Coast lines as they come with the page, made ready to be drawn.

const GRID = 200;

export interface Ring {
  /** x, y in turn, the world being 1 wide and high (Web Mercator). */
  points: Float64Array;
  box: [number, number, number, number];
}

/** A point in degrees on a world of 1 by 1. */
export function mercator(lon: number, lat: number): [number, number] {
  const sine = Math.sin((Math.max(-85, Math.min(85, lat)) * Math.PI) / 180);
  return [(lon + 180) / 360, 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI)];
}

/** The rings of `virtual:land`, added up. */
export function unfold(steps: readonly number[]): Ring {
  const points = new Float64Array(steps.length);
  const box: Ring["box"] = [Infinity, Infinity, -Infinity, -Infinity];
  let lon = 0;
  let lat = 0;
  for (let at = 0; at < steps.length; at += 2) {
    lon += steps[at] ?? 0;
    lat += steps[at + 1] ?? 0;
    const [x, y] = mercator(lon / GRID, lat / GRID);
    points[at] = x;
    points[at + 1] = y;
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x);
    box[3] = Math.max(box[3], y);
  }
  return { points, box };
}
