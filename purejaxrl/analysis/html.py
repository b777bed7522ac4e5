"""A Result as a notebook shows it: one piece of HTML that holds its pictures."""

from __future__ import annotations

import base64
import html
import io

import pandas as pd
from matplotlib.figure import Figure

from purejaxrl.analysis.statistics import figures, notes_of, ranking

ROWS = 10
WIDTH = 560
STYLE = 'style="max-width: 100%; border: 1px solid #ddd"'


def page(title: str, parts: list[str]) -> str:
    """A title and what stands below it, one beside another where there is room."""
    cells = "".join(f'<div style="margin: 4px 16px 4px 0">{part}</div>' for part in parts)
    wrapped = f'<div style="display: flex; flex-wrap: wrap; align-items: center">{cells}</div>'
    return f"<div><div>{html.escape(title)}</div>{wrapped}</div>"


def picture(figure: Figure) -> str:
    """A matplotlib figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return image(file.getvalue(), "png", "learning curves", WIDTH)


def image(content: bytes, kind: str, what: str, width: int) -> str:
    """A picture of a kind as `png`, within the page; what: said where it is not shown."""
    data = base64.b64encode(content).decode()
    return f'<img src="data:image/{kind};base64,{data}" alt="{what}" width="{width}" {STYLE}>'


def table(frame: pd.DataFrame, labels: list[str]) -> str:
    """`statistics.describe` of some settings, the best of them first; labels: of its rows."""
    order = ranking(frame)[:ROWS]
    best = frame.iloc[order]
    shown = pd.DataFrame({"setting": [labels[row] for row in order]})
    for upper, lower, cells in figures(best):
        # Cells are padded for a terminal.
        shown[f"{upper} {lower}".strip()] = [" ".join(cell.split()).replace("[ ", "[") for cell in cells]
    if len(best) == 1:
        shown = shown.drop(columns=shown.columns[-1])
    more = [f"and {len(frame) - ROWS} more settings"] if len(frame) > ROWS else []
    notes = "".join(f"<div>{html.escape(note)}</div>" for note in [*more, *notes_of(best)])
    content = shown.to_html(index=False, border=0, justify="left") + notes
    return f'<div style="font-size: small; white-space: nowrap">{content}</div>'
