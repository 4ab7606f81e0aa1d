// Every element with text of its own that is shown: its words, and how far they stand out from
// what is behind them (contrast ratio of WCAG 2.2: relative luminances, lighter over darker).
() => {
  const parse = (css) => css.match(/[\d.]+/g).map(Number);
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  // In a figure: the last shape drawn before the words that fills the place where they stand.
  const drawnBehind = (text) => {
    const { left, top, width, height } = text.getBoundingClientRect();
    const [x, y] = [left + width / 2, top + height / 2];
    const holds = (box) => box.left <= x && x <= box.right && box.top <= y && y <= box.bottom;
    const shapes = [...text.ownerSVGElement.querySelectorAll("path, rect, polygon, circle")].filter(
      (shape) => shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING &&
        holds(shape.getBoundingClientRect()) && filled(getComputedStyle(shape)));
    return shapes.length ? parse(getComputedStyle(shapes.at(-1)).fill) : null;
  };
  const filled = ({ fill, fillOpacity, opacity }) => fill !== "none" && fillOpacity * opacity > 0.9;
  const behind = (element) => {
    const drawn = element.ownerSVGElement ? drawnBehind(element) : null;
    if (drawn) return drawn;
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const seen = [];
  for (const element of document.body.querySelectorAll("*")) {
    const words = [...element.childNodes]
      .filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data).join("").trim();
    const box = element.getBoundingClientRect();
    if (!words || !box.width || element.closest("style")) continue;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(ink), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen.push({ words, ratio: Math.round(ratio * 100) / 100 });
  }
  return seen;
}
