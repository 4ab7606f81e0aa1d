// What is wrong with the words of a figure: those that lie on each other, and those that leave it.
(figure) => {
  const SLACK = 1; // CSS pixels; boxes are those of the font, not of the ink
  const frame = figure.getBoundingClientRect();
  const texts = [...figure.querySelectorAll("text")]
    .map((text) => ({ words: text.textContent.trim(), box: text.getBoundingClientRect() }))
    .filter(({ words }) => words);
  const faults = texts
    .filter(({ box }) => box.left < frame.left - SLACK || box.right > frame.right + SLACK ||
      box.top < frame.top - SLACK || box.bottom > frame.bottom + SLACK)
    .map(({ words }) => `${words} is outside`);
  texts.forEach(({ words, box }, index) => {
    for (const other of texts.slice(index + 1)) {
      const wide = Math.min(box.right, other.box.right) - Math.max(box.left, other.box.left);
      const high = Math.min(box.bottom, other.box.bottom) - Math.max(box.top, other.box.top);
      if (wide > SLACK && high > SLACK) faults.push(`${words} lies on ${other.words}`);
    }
  });
  return faults;
}
