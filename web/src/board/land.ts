// The land below everything else, drawn on a canvas of its own when the map comes to rest.

import { DomUtil, type Map as LeafletMap } from "leaflet";
import { type Ring, unfold } from "./rings.ts";

/** Drawn beyond the edges, so that a short pan shows no gap. */
const MARGIN = 256;

export class Land {
  private readonly canvas = document.createElement("canvas");
  private readonly rings: Ring[];

  constructor(
    private readonly map: LeafletMap,
    pane: HTMLElement,
    steps: readonly number[][],
  ) {
    this.rings = steps.map(unfold);
    this.canvas.setAttribute("aria-hidden", "true");
    pane.append(this.canvas);
    map.on("moveend", () => this.draw());
    this.draw();
  }

  draw(): void {
    const context = this.canvas.getContext("2d");
    const size = this.map.getSize();
    if (context === null || size.x === 0) return;
    const width = size.x + 2 * MARGIN;
    const height = size.y + 2 * MARGIN;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    } else context.clearRect(0, 0, width, height);
    DomUtil.setPosition(this.canvas, this.map.containerPointToLayerPoint([-MARGIN, -MARGIN]));
    const style = getComputedStyle(document.documentElement);
    context.fillStyle = style.getPropertyValue("--land");
    context.strokeStyle = style.getPropertyValue("--border");
    context.lineWidth = 1;
    context.lineJoin = "round";
    const scale = 256 * 2 ** this.map.getZoom();
    const corner = this.map.getPixelBounds().min;
    if (corner === undefined) return;
    const left = corner.x - MARGIN;
    const top = corner.y - MARGIN;
    context.beginPath();
    for (const { points, box } of this.rings) {
      if (box[2] * scale < left || box[0] * scale > left + width) continue;
      if (box[3] * scale < top || box[1] * scale > top + height) continue;
      let lastX = -1e9;
      let lastY = -1e9;
      for (let at = 0; at < points.length; at += 2) {
        const x = (points[at] ?? 0) * scale - left;
        const y = (points[at + 1] ?? 0) * scale - top;
        if (at === 0) context.moveTo(x, y);
        // Points of one pixel are one: at a small scale most of a coast is.
        else if (Math.abs(x - lastX) + Math.abs(y - lastY) < 1) continue;
        else context.lineTo(x, y);
        lastX = x;
        lastY = y;
      }
      context.closePath();
    }
    context.fill("evenodd");
    context.stroke();
  }
}
