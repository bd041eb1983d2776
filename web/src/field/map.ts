// A map of Indonesia's coast on a canvas, to say where by a tap. Small enough for a bad line, and without a picture of
// anybody else's server: it helps whoever knows where on the coast they are, and shows where GPS has put them.

import centres from "virtual:area-points";
import coast from "virtual:coast";
import { h, fill } from "../common/dom.ts";
import { t } from "../common/i18n.ts";
import { round, type Spot } from "./place.ts";

const WEST = 94;
const SOUTH = -12;
const GRID = 50;
/** A fingertip is about so many pixels wide. */
const FINGER = 12;
const KM = 111.3;
const CLOSEST = 20_000;

interface Ring {
  points: Float32Array;
  box: [number, number, number, number];
}

const RINGS: Ring[] = coast.map((steps) => {
  const points = new Float32Array(steps.length);
  const box: Ring["box"] = [180, 90, -180, -90];
  let x = 0;
  let y = 0;
  for (let n = 0; n < steps.length; n += 2) {
    x += steps[n] ?? 0;
    y += steps[n + 1] ?? 0;
    const lon = (points[n] = WEST + x / GRID);
    const lat = (points[n + 1] = SOUTH + y / GRID);
    box[0] = Math.min(box[0], lon);
    box[1] = Math.min(box[1], lat);
    box[2] = Math.max(box[2], lon);
    box[3] = Math.max(box[3], lat);
  }
  return { points, box };
});

/** Draw the map into an element; `choose` is told each place that is tapped. */
export function show(into: HTMLElement, start: Spot, choose: (place: Spot) => void): void {
  // Indonesia lies on the equator: degrees of both directions are taken as equal.
  const canvas = h("canvas", { tabindex: 0, role: "application", "aria-label": t("map.label"), "aria-describedby": "map-help" });
  const button = (id: string, sign: string, act: () => void) => h("button", { type: "button", "aria-label": t(`map.${id}`), onclick: act }, sign);
  fill(
    into,
    canvas,
    h("div", { class: "row" }, button("in", "+", () => zoom(2)), button("out", "−", () => zoom(0.5)),
      h("button", { type: "button", onclick: () => pick(canvas.width / 2, canvas.height / 2) }, t("map.middle"))),
    h("p", { class: "quiet", id: "map-help" }, t("map.help"), " ", t("map.source")),
  );
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.max(280, canvas.clientWidth) * ratio;
  canvas.height = 300 * ratio;
  let pin: Spot = start;
  let scale = start.lon === undefined ? canvas.width / 48 : 400 * ratio;
  let centre = start.lon === undefined ? { x: 118, y: -2.3 } : { x: start.lon, y: start.lat ?? 0 };
  const xOf = (lon: number) => (lon - centre.x) * scale + canvas.width / 2;
  const yOf = (lat: number) => (centre.y - lat) * scale + canvas.height / 2;
  const lonOf = (x: number) => centre.x + (x - canvas.width / 2) / scale;
  const latOf = (y: number) => centre.y - (y - canvas.height / 2) / scale;
  let drawing = 0;

  function draw(): void {
    drawing ||= requestAnimationFrame(paint);
  }

  function paint(): void {
    drawing = 0;
    const brush = canvas.getContext("2d");
    if (!brush) return;
    const colour = (name: string) => getComputedStyle(into).getPropertyValue(name);
    brush.fillStyle = colour("--water");
    brush.fillRect(0, 0, canvas.width, canvas.height);
    const [west, south, east, north] = [lonOf(0), latOf(canvas.height), lonOf(canvas.width), latOf(0)];
    brush.fillStyle = colour("--land");
    brush.strokeStyle = colour("--border");
    brush.lineWidth = ratio;
    brush.beginPath();
    for (const { points, box } of RINGS) {
      if (box[0] > east || box[2] < west || box[1] > north || box[3] < south) continue;
      for (let n = 0; n < points.length; n += 2) {
        const x = xOf(points[n] ?? 0);
        const y = yOf(points[n + 1] ?? 0);
        if (n === 0) brush.moveTo(x, y);
        else brush.lineTo(x, y);
      }
      brush.closePath();
    }
    brush.fill("evenodd");
    brush.stroke();
    brush.fillStyle = brush.strokeStyle = colour("--ink");
    brush.font = `${11 * ratio}px system-ui, sans-serif`;
    brush.textAlign = "center";
    const taken: [number, number][] = [];
    for (const [name, lon, lat] of Object.values(centres)) {
      const [x, y] = [xOf(lon), yOf(lat)];
      if (taken.some(([a, b]) => Math.abs(a - x) < 90 * ratio && Math.abs(b - y) < 14 * ratio)) continue;
      taken.push([x, y]);
      brush.fillText(name, x, y);
    }
    brush.lineWidth = 1.5 * ratio;
    cross(brush, canvas.width / 2, canvas.height / 2, 8 * ratio);
    if (pin.lon === undefined || pin.lat === undefined) return;
    brush.fillStyle = brush.strokeStyle = colour("--bad");
    brush.beginPath();
    brush.arc(xOf(pin.lon), yOf(pin.lat), 6 * ratio, 0, 2 * Math.PI);
    brush.fill();
    brush.beginPath();
    brush.arc(xOf(pin.lon), yOf(pin.lat), Math.max(10 * ratio, ((pin.accuracy_m ?? 0) / 1000 / KM) * scale), 0, 2 * Math.PI);
    brush.stroke();
  }

  function zoom(by: number, x = canvas.width / 2, y = canvas.height / 2): void {
    const [lon, lat] = [lonOf(x), latOf(y)];
    scale = Math.min(Math.max(scale * by, canvas.width / 60), CLOSEST * ratio);
    centre = { x: lon - (x - canvas.width / 2) / scale, y: lat + (y - canvas.height / 2) / scale };
    draw();
  }

  function move(dx: number, dy: number): void {
    centre = {
      x: Math.min(Math.max(centre.x - dx / scale, WEST), 142),
      y: Math.min(Math.max(centre.y + dy / scale, SOUTH), 7),
    };
    draw();
  }

  function pick(x: number, y: number): void {
    const accuracy = Math.max(100, Math.round(((FINGER * ratio) / scale) * KM) * 1000);
    pin = { lon: round(lonOf(x)), lat: round(latOf(y)), accuracy_m: Math.min(accuracy, 200_000) };
    choose(pin);
    draw();
  }

  const fingers = new Map<number, [number, number]>();
  let moved = false;
  const at = (event: PointerEvent): [number, number] => [event.offsetX * ratio, event.offsetY * ratio];
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (fingers.size === 0) moved = false;
    fingers.set(event.pointerId, at(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      moved = true;
      const [was, is] = [before, now].map((point) => Math.hypot(point[0] - other[0], point[1] - other[1])) as [number, number];
      if (was > 0) zoom(is / was, other[0], other[1]);
    } else if (moved || Math.hypot(now[0] - before[0], now[1] - before[1]) > 6 * ratio) {
      moved = true;
      move(now[0] - before[0], now[1] - before[1]);
    } else return;
    fingers.set(event.pointerId, now);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!moved && fingers.size === 1) pick(...at(event));
    fingers.delete(event.pointerId);
  });
  canvas.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.5 : 1 / 1.5, event.offsetX * ratio, event.offsetY * ratio);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = 40 * ratio;
    const acts: Record<string, () => void> = {
      ArrowLeft: () => move(step, 0), ArrowRight: () => move(-step, 0), ArrowUp: () => move(0, step), ArrowDown: () => move(0, -step),
      "+": () => zoom(2), "=": () => zoom(2), "-": () => zoom(0.5),
      Enter: () => pick(canvas.width / 2, canvas.height / 2),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  draw();
}

function cross(brush: CanvasRenderingContext2D, x: number, y: number, arm: number): void {
  brush.beginPath();
  brush.moveTo(x - arm, y);
  brush.lineTo(x + arm, y);
  brush.moveTo(x, y - arm);
  brush.lineTo(x, y + arm);
  brush.stroke();
}
