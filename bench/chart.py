"""Bar charts as SVG, for bench/results: no library, readable in light and dark pages."""
import html

COLOURS = ["#2a78b8", "#d97a2b", "#4f9a4f", "#b0507f", "#7a6bb5", "#8a8a8a"]
LABEL, PLOT, BAR, GAP = 210, 460, 13, 12


def text(x, y, words, anchor="start", size=12, weight="normal"):
    return ('<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d" font-weight="%s">%s</text>'
            % (x, y, anchor, size, weight, html.escape(words)))


def bar(y, value, low, high, most, colour, words):
    """A bar, a whisker from the lowest to the highest, and what it says."""
    scale = PLOT / most
    middle = y + BAR / 2
    return ['<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/>'
            % (LABEL, y, value * scale, BAR - 2, colour),
            '<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="currentColor"/>'
            % (LABEL + low * scale, LABEL + high * scale, middle - 1, middle - 1),
            text(LABEL + max(value, high) * scale + 5, y + BAR - 3, words, size=11)]


def write_bars(path, title, unit, groups, note=""):
    """groups: [(label, [(series, value, lowest, highest, words)])], the series of each
    in the same colour everywhere; bars of one scale from 0."""
    names = list(dict.fromkeys(row[0] for _, rows in groups for row in rows))
    most = max(row[3] for _, rows in groups for row in rows) or 1
    out, y = [text(10, 22, title, size=15, weight="bold"), text(10, 40, unit, size=11)], 52
    for index, name in enumerate(names):
        column, line = index % 3, index // 3
        x, at = 10 + 260 * column, y + 18 * line
        out.append('<rect x="%d" y="%d" width="11" height="11" fill="%s"/>'
                   % (x, at, COLOURS[index % len(COLOURS)]))
        out.append(text(x + 16, at + 10, name, size=11))
    y += 18 * ((len(names) + 2) // 3) + 8
    for label, rows in groups:
        out.append(text(LABEL - 8, y + BAR * len(rows) / 2 + 4, label, "end"))
        for name, value, low, high, words in rows:
            out += bar(y, value, low, high, most, COLOURS[names.index(name) % len(COLOURS)], words)
            y += BAR
        y += GAP
    out.append(text(10, y + 10, note, size=10))
    with open(path, "w") as file:
        file.write('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family='
                   '"sans-serif" fill="#555" color="#888">\n%s\n</svg>\n'
                   % (LABEL + PLOT + 130, y + 22, "\n".join(out)))
