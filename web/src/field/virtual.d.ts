declare module "virtual:coast" {
  const rings: number[][];
  export default rings;
}

declare module "virtual:areas" {
  const rows: string[];
  export default rows;
}

declare module "virtual:own-texts" {
  const texts: Record<string, string>;
  export default texts;
}
