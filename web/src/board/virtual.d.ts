declare module "virtual:land" {
  const rings: number[][];
  export default rings;
}

declare module "virtual:towns" {
  const towns: [string, number, number, number][];
  export default towns;
}
