"""Fonts for characters that matplotlib's default font lacks, such as Chinese ones."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import matplotlib as mpl
from matplotlib.font_manager import fontManager

log = logging.getLogger("latentforge")

WIDE = (  # fonts with Chinese, Japanese or Korean characters, on Linux, macOS and Windows
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "IPAGothic", "Droid Sans Fallback"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "SimHei"),
)
MISSING = re.compile(r"Glyph (\d+) .*missing from font\(s\) (.*)\.", re.DOTALL)
_announced: set[str] = set()


@cache
def families() -> list[str]:
    """The default font, then the installed fonts of WIDE, which draw what it lacks."""
    installed = {*fontManager.get_font_names()}
    return [*mpl.rcParams["font.family"], *(name for name in WIDE if name in installed)]


@contextmanager
def readable_text() -> Iterator[None]:
    """Draw figures with these fonts. Announces, once for each, characters that no font has."""
    with warnings.catch_warnings(record=True) as caught, mpl.rc_context():
        warnings.simplefilter("always")
        mpl.rcParams["font.family"] = families()
        yield
    missing: dict[str, None] = {}
    fonts = ""
    for warning in caught:
        if found := MISSING.search(str(warning.message)):
            missing[chr(int(found[1]))] = None
            fonts = found[2]
        else:
            place = (warning.category, warning.filename, warning.lineno)
            warnings.warn_explicit(warning.message, *place)
    if new := [character for character in missing if character not in _announced]:
        _announced.update(new)
        message = "no font (%s) can draw %s; install one, such as Noto Sans CJK (fonts-noto-cjk)"
        log.warning(message, fonts, " ".join(new[:10]))
