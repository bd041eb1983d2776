import "../common/style/tokens.css";
import { h } from "../common/dom.ts";
import { chosen, t, use } from "../common/i18n.ts";
import boardId from "../../locales/board.id.json";
import commonId from "../../locales/common.id.json";

use(chosen(), commonId, boardId);
document.getElementById("app")?.append(h("main", null, h("h1", null, t("board.title"))));
