import assert from "node:assert/strict";
import { test } from "node:test";
import { renewIn } from "../src/common/renew.ts";
import { safePath, tokenIn } from "../src/login/next.ts";

test("after the login one is led to a path of ours, whatever was asked for", () => {
  const origin = "http://127.0.0.1:8000";
  assert.equal(safePath("/public?operation=a", origin), "/public?operation=a");
  for (const asked of [null, "", "public", "//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)"]) {
    assert.equal(safePath(asked, origin), "/", String(asked));
  }
});

test("a token is found in a pasted link and by itself, and in nothing else", () => {
  assert.equal(tokenIn("http://a.example/#token=aa.bb.c-c_"), "aa.bb.c-c_");
  assert.equal(tokenIn("  aa.bb.cc \n"), "aa.bb.cc");
  for (const pasted of ["", "aa.bb", "hello aa.bb.cc", "http://a.example/?x=1"]) assert.equal(tokenIn(pasted), null);
});

test("the next token is asked for while this one still has time, and never in a storm", () => {
  assert.equal(renewIn(300_000, 0, 300_000), 225_000);
  assert.equal(renewIn(500, 0, 500), 1_000);
});
