// Numbers as they are spelled. JSON.parse turns 9.50 into 9.5; what people compare with a receipt must not change.

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/** A value of a valid JSON text: its `source`, and its `members` by name or its `items`. */
export function read(text) {
  const tokens = [...text.matchAll(TOKEN)];
  let at = 0;
  const value = () => {
    const { 0: first, index: start } = tokens[at++];
    const node = { members: new Map(), items: [] };
    if (first === "{" || first === "[") {
      const isObject = first === "{";
      while (!"}]".includes(tokens[at][0])) {
        if (tokens[at][0] === ",") at += 1;
        const name = isObject ? JSON.parse(tokens[at][0]) : null;
        if (isObject) at += 2;
        const member = value();
        if (isObject) node.members.set(name, member);
        else node.items.push(member);
      }
      at += 1;
    }
    const last = tokens[at - 1];
    node.source = text.slice(start, last.index + last[0].length);
    return node;
  };
  return value();
}

/** What a value shows: a text without its quotes, a number as it is spelled. None for what is absent or null. */
export function shown(node) {
  if (!node || node.source === "null") return null;
  return node.source.startsWith("\"") ? JSON.parse(node.source) : node.source;
}

/** An exact decimal as units and places; none for what is no plain decimal. */
function decimal(text) {
  const [, sign, whole, fraction = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text ?? "") ?? [];
  return whole === undefined ? null : { units: BigInt(sign + whole + fraction), places: fraction.length };
}

/** `price` times `amount`, exactly, as text; none where either is no decimal. */
export function times(price, amount) {
  const [one, many] = [decimal(price), decimal(amount)];
  if (!one || !many) return null;
  const [units, places] = [one.units * many.units, one.places + many.places];
  const digits = String(units < 0n ? -units : units).padStart(places + 1, "0");
  const point = digits.length - places;
  return `${units < 0n ? "-" : ""}${digits.slice(0, point)}${places ? `.${digits.slice(point)}` : ""}`;
}

/** Whether two texts are the same number, however many places they have, or else the same text. */
export function same(one, other) {
  const [a, b] = [decimal(one), decimal(other)];
  if (!a || !b) return one === other;
  return a.units * 10n ** BigInt(b.places) === b.units * 10n ** BigInt(a.places);
}
