// The login page: by an OpenID provider where the installation has one, by a token link always.

import "../common/style/tokens.css";
import "./login.css";
import common from "../../locales/common.id.json";
import commonEn from "../../locales/common.en.json";
import texts from "../../locales/login.id.json";
import textsEn from "../../locales/login.en.json";
import { call, Refused } from "../common/api.ts";
import { fill, h, text } from "../common/dom.ts";
import { chosen, t, use } from "../common/i18n.ts";
import { keepRenewal, keepToken, readToken, takeFromAddress } from "../common/session.ts";
import { begin, finish, isReturn, type Provider } from "./oidc.ts";
import { safePath, tokenIn } from "./next.ts";

const NEXT = "gotong.next";
const app = document.querySelector("#app") as HTMLElement;
const problem = h("p", { class: "problem", role: "alert" });

function next(): string {
  return safePath(sessionStorage.getItem(NEXT), location.origin);
}

async function start(): Promise<void> {
  if (chosen() === "id") use("id", common, texts);
  else use("en", commonEn, textsEn);
  document.title = `${t("login.title")} · Gotong`;
  const query = new URLSearchParams(location.search);
  if (query.has("next")) sessionStorage.setItem(NEXT, query.get("next") ?? "/");
  if (takeFromAddress()) {
    location.replace(next());
    return;
  }
  if (isReturn(query)) {
    // The code is of no use a second time and of no business to anybody: out of the address at once.
    history.replaceState(null, "", location.pathname);
    fill(app, h("main", null, h("p", { role: "status" }, t("login.working"))));
    try {
      const granted = await finish(query);
      if (granted !== null) {
        keepToken(granted.token);
        keepRenewal(granted.refresh_token ?? null);
        location.replace(next());
        return;
      }
      text(problem, t("login.failed", { reason: t("login.refused") }));
    } catch (error) {
      text(problem, t("login.failed", { reason: (error as Error).message }));
    }
  }
  await show();
}

async function show(): Promise<void> {
  const pasted = h("input", {
    id: "link", name: "link", type: "password", autocomplete: "off", spellcheck: "false", "aria-describedby": "help",
  });
  const form = h(
    "form",
    { onsubmit: (event) => { event.preventDefault(); take(pasted.value); } },
    h("label", { for: "link" }, t("login.link")),
    pasted,
    h("p", { id: "help", class: "help" }, t("login.link.help")),
    h("button", { type: "submit" }, t("login.submit")),
  );
  const provider = h("div");
  fill(
    app,
    h("main", null, h("h1", null, t("login.title")), h("p", null, t("login.lead")), problem, provider, form),
    h("nav", null, ...["board", "field", "public"].map((name) =>
      h("a", { href: name === "board" ? "/" : `/${name}` }, t(`login.to.${name}`)))),
  );
  try {
    const { oidc } = await call<{ oidc: Provider | null }>("/v1/login");
    if (oidc !== null) fill(provider, providerButton(oidc));
  } catch (error) {
    if (error instanceof Refused) text(problem, t("login.off"));
    else throw error;
  }
}

function providerButton(provider: Provider): HTMLElement {
  const name = new URL(provider.issuer).host;
  return h(
    "button",
    { class: "first", type: "button", onclick: () => { void begin(provider).then((address) => location.assign(address)); } },
    t("login.oidc", { provider: name }),
  );
}

function take(pasted: string): void {
  const token = tokenIn(pasted);
  const read = token === null ? null : readToken(token);
  if (token === null || read === null) text(problem, t("login.not_token"));
  else if (read.expires !== null && read.expires <= Date.now()) text(problem, t("login.expired"));
  else {
    keepToken(token);
    keepRenewal(null);
    location.assign(next());
  }
}

void start();
