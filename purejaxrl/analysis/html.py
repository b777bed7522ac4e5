"""Results as notebooks show them: HTML with embedded images."""

from __future__ import annotations

import base64
import contextlib
import html
import io
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from purejaxrl.analysis import plots
from purejaxrl.analysis.statistics import footnotes, table_columns

if TYPE_CHECKING:
    from purejaxrl.analysis.result import Result

ROWS = 10
WIDTH = 560
STYLE = 'style="max-width: 100%; border: 1px solid #ddd"'


def render_result(result: Result) -> str:
    """Render learning curves, a video of the policy and a table of settings, side by side where there is room.

    Args:
        result: The Result to show.

    Returns:
        The HTML. A part that cannot be made is left out, as a cell must not fail because of how its result looks.
    """
    cells = ""
    for render in (_curves, lambda result: result._preview, _table):
        with contextlib.suppress(Exception):
            cells += f'<div style="margin: 4px 16px 4px 0">{render(result)}</div>'
    wrapped = f'<div style="display: flex; flex-wrap: wrap; align-items: center">{cells}</div>'
    return f"<div><div>{html.escape(repr(result)[1:-1])}</div>{wrapped}</div>"


def image(content: bytes, kind: str, alt: str, width: int, caption: str = "") -> str:
    """Embed an image.

    Args:
        content: The image file's bytes.
        kind: Its format, such as `png`.
        alt: Text shown where images are not.
        width: Width on the page in pixels.
        caption: Text shown below it.

    Returns:
        HTML that holds the image itself.
    """
    data = base64.b64encode(content).decode()
    below = f'<div style="font-size: small">{html.escape(caption)}</div>' if caption else ""
    return f'<img src="data:image/{kind};base64,{data}" alt="{alt}" width="{width}" {STYLE}>{below}'


def _curves(result: Result) -> str:
    with plots.default_style():
        figure = Figure(figsize=plots.SIZE, layout="constrained")
        result.plot(figure.subplots())
        plots.make_room_for_legend(figure)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=120)
        return image(file.getvalue(), "png", "learning curves", WIDTH)


def _table(result: Result) -> str:
    """The settings with their statistics, best first."""
    frame = result.summary()
    best = frame[:ROWS]
    shown = pd.DataFrame({"setting": [result.config.labels[setting] for setting in best["setting"]]})
    for upper, lower, cells in table_columns(best):
        # Cells are padded for a terminal.
        shown[f"{upper} {lower}".strip()] = [" ".join(cell.split()).replace("[ ", "[") for cell in cells]
    if len(best) == 1:
        shown = shown.drop(columns=shown.columns[-1])
    more = [f"and {len(frame) - ROWS} more settings"] if len(frame) > ROWS else []
    notes = "".join(f"<div>{html.escape(note)}</div>" for note in [*more, *footnotes(best)])
    content = shown.to_html(index=False, border=0, justify="left") + notes
    return f'<div style="font-size: small; white-space: nowrap">{content}</div>'
