"""What page tests share: a home of their own for what the pages keep, a visit, a word of the address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def living_in(home: Path) -> Iterator[None]:
    """Store, studies and analyses below ``home``, and no cached word of any other home before or after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIPLECHECK_STORE", str(home / "store"))
        for cache in (st.cache_resource, st.cache_data):
            cache.clear()
        yield
        for cache in (st.cache_resource, st.cache_data):
            cache.clear()


def visit(page: str, **link: Any) -> AppTest:
    """The page of an opened link, without an exception."""
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
    for name, value in link.items():
        at.query_params[name] = value
    at = at.switch_page(page).run()
    assert not at.exception
    return at


def word(at: AppTest, name: str) -> str:
    """The first value of a word of the address."""
    value = at.query_params[name]
    return value[0] if isinstance(value, list) else value
