import assert from "node:assert/strict";
import { test } from "node:test";
import { Parser } from "../src/common/stream.ts";

test("a message that comes in pieces is given once, whole", () => {
  const parser = new Parser();
  const whole = ": here\n\nid: 7\nevent: gotong.report.received.v1\ndata: {\"a\":1}\n\n";
  const found = [...whole].flatMap((letter) => parser.push(letter));
  assert.deepEqual(found, [{ id: "7", event: "gotong.report.received.v1", data: '{"a":1}' }]);
});

test("a comment is no message, and data of several lines stays together", () => {
  const parser = new Parser();
  assert.deepEqual(parser.push(": still here\r\n\r\n"), []);
  assert.deepEqual(parser.push("data: a\ndata: b\n\n"), [{ id: "", event: "message", data: "a\nb" }]);
});
