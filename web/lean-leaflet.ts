// The parts of Leaflet that the board does not use, left out: lines and areas (drawn on canvases of our own), tooltips,
// GeoJSON, layer and scale controls. Its module holds on to them by statements of their own, which are taken off here;
// one that is not found, as after an upgrade, ends the build.

import type { Plugin } from "vite";

/** Beginnings of statements at the start of a line, each up to the first line that ends one. */
const LEFT_OUT = [
  "Map.mergeOptions({\n\tattributionControl: true",
  "Map.addInitHook(function () {\n\tif (this.options.attributionControl)",
  "Control.Layers = Layers;",
  "Control.Scale = Scale;",
  "Control.Attribution = Attribution;",
  "control.layers = layers;",
  "control.scale = scale;",
  "control.attribution = attribution;",
  "Marker.include(PointToGeoJSON);",
  "Circle.include(PointToGeoJSON);",
  "CircleMarker.include(PointToGeoJSON);",
  "Polyline.include({",
  "Polygon.include({",
  "LayerGroup.include({\n\ttoMultiPoint",
  "Map.include({\n\n\t// @method openTooltip",
  "Layer.include({\n\n\t// @method bindTooltip",
  "Icon.Default = IconDefault;",
  "TileLayer.WMS = TileLayerWMS;",
  "tileLayer.wms = tileLayerWMS;",
  "Map.include({\n\t// @namespace Map; @method getRenderer",
  "SVG.create = create;",
  "SVG.pointsToPath = pointsToPath;",
  "GeoJSON.geometryToLayer = geometryToLayer;",
  "GeoJSON.coordsToLatLng = coordsToLatLng;",
  "GeoJSON.coordsToLatLngs = coordsToLatLngs;",
  "GeoJSON.latLngToCoords = latLngToCoords;",
  "GeoJSON.latLngsToCoords = latLngsToCoords;",
  "GeoJSON.getFeature = getFeature;",
  "GeoJSON.asFeature = asFeature;",
  "Map.mergeOptions({\n\t// @option boxZoom",
  "Map.addInitHook('addHandler', 'boxZoom', BoxZoom);",
];

/** Making a class has no effect but the class, which the bundler cannot know by itself. */
export const CLASSES = [
  "Class", "Layer", "Handler", "Control", "Renderer", "GridLayer", "ImageOverlay", "Path", "DivOverlay", "LayerGroup",
  "Evented", "Polyline", "CircleMarker", "Icon", "TileLayer", "FeatureGroup", "Polygon", "IconDefault",
].map((name) => `${name}.extend`); // prettier-ignore

export function leanLeaflet(): Plugin {
  return {
    name: "lean-leaflet",
    transform(code, id) {
      if (!id.includes("leaflet-src.esm.js")) return null;
      let lean = code.replaceAll("\r\n", "\n");
      for (const begin of LEFT_OUT) {
        const from = lean.indexOf(`\n${begin}`) + 1;
        if (from === 0) this.error(`Leaflet has no "${begin.slice(0, 60)}": see web/lean-leaflet.ts`);
        const oneLine = !begin.includes("\n") && begin.endsWith(";");
        const to = oneLine ? from + begin.length : lean.indexOf("\n});", from) + 4;
        lean = lean.slice(0, from) + lean.slice(to);
      }
      return { code: lean, map: null };
    },
  };
}
