/**
 * An element with properties, `data-`, `aria-` and other attributes, and children.
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string | null | undefined | false)} children
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Runs a class's animation once: it lights up, then the class is gone. */
export function once(element, name) {
  element.classList.remove(name);
  void element.offsetWidth; // begins anew where it is under way
  element.classList.add(name);
  element.addEventListener("animationend", () => element.classList.remove(name), { once: true });
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
