declare module "virtual:hazards" {
  const labels: Record<string, [string, string]>;
  export default labels;
}

declare module "virtual:items" {
  const labels: Record<string, [string, string]>;
  export default labels;
}

declare module "virtual:skills" {
  const labels: Record<string, [string, string]>;
  export default labels;
}

declare module "virtual:units" {
  const labels: Record<string, [string, string]>;
  export default labels;
}

declare module "virtual:area-names" {
  const names: Record<string, string>;
  export default names;
}

declare module "virtual:area-points" {
  const points: Record<string, [string, number, number]>;
  export default points;
}

declare module "virtual:labels-id" {
  const labels: Record<"hazards" | "items" | "skills" | "units", Record<string, string>>;
  export default labels;
}

declare module "virtual:labels-en" {
  const labels: Record<"hazards" | "items" | "skills" | "units", Record<string, string>>;
  export default labels;
}
