// The page is made of elements and text nodes only. Nothing here, and nothing elsewhere, turns a string into markup:
// what people wrote is text wherever it stands.

type Listener = (event: Event) => void;
export type Child = Node | string | number | null | undefined | false;
export type Attributes = Record<string, string | number | boolean | null | undefined | Listener>;

/**
 * An element. `class` and every other name are attributes; `onclick` and the like are listeners; false, null and
 * undefined leave an attribute out, true sets it empty.
 */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes?: Attributes | null,
  ...children: (Child | Child[])[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  dress(element, attributes);
  element.append(...nodes(children));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element, as `h`. */
export function s(tag: string, attributes?: Attributes | null, ...children: Child[]): SVGElement {
  const element = document.createElementNS(SVG, tag);
  dress(element, attributes);
  element.append(...nodes(children));
  return element;
}

function dress(element: Element, attributes?: Attributes | null): void {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
}

function nodes(children: (Child | Child[])[]): (Node | string)[] {
  const found: (Node | string)[] = [];
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    found.push(typeof child === "number" ? String(child) : child);
  }
  return found;
}

/** Put these in place of all that an element holds. */
export function fill(element: Element, ...children: (Child | Child[])[]): void {
  element.replaceChildren(...nodes(children));
}

/** Set the text of an element only where it differs: an unchanged node costs no layout. */
export function text(element: Element, value: string): void {
  if (element.textContent !== value) element.textContent = value;
}

/**
 * Keep an element's children in step with a list of items: one child for each key, made once, kept in order, moved
 * only where the order changed, so that focus and selection stay where they are.
 */
export function keyed<T>(
  parent: Element,
  items: readonly T[],
  key: (item: T) => string,
  make: (item: T) => HTMLElement,
  update: (element: HTMLElement, item: T) => void,
): void {
  const known = CHILDREN.get(parent) ?? new Map<string, HTMLElement>();
  CHILDREN.set(parent, known);
  const wanted = new Set<string>();
  let at: Element | null = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    if (wanted.has(name)) continue;
    wanted.add(name);
    let element = known.get(name);
    if (element === undefined) {
      element = make(item);
      known.set(name, element);
    }
    update(element, item);
    if (at === element) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
  }
  for (const [name, element] of known) {
    if (wanted.has(name)) continue;
    element.remove();
    known.delete(name);
  }
}

const CHILDREN = new WeakMap<Element, Map<string, HTMLElement>>();
