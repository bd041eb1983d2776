declare module "virtual:coast" {
  const rings: number[][];
  export default rings;
}

declare module "virtual:trained-skills" {
  const codes: string[];
  export default codes;
}

declare module "virtual:own-texts" {
  const texts: Record<string, string>;
  export default texts;
}
