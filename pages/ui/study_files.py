"""What a study leaves behind: its report, its files, the command that repeats it, and where it was made."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import streamlit as st

from audit_core.study import opening, tables
from audit_core.study.folder import MANIFEST, STUDY, StudyFolder
from audit_core.study.shelf import Shelf
from pages.ui import link, study_link, wording


def draw(name: str) -> None:
    """Downloads, the command, this page's link and the provenance."""
    folder, manifest = Shelf.default().folder(name), study_link.read_manifest(name)
    there = bool(opening.files_of(folder.root, "measures"))
    shared: dict[str, Any] = {"on_click": "ignore", "icon": ":material/download:"}
    with st.container(horizontal=True, gap="small"):
        text = (folder.root / STUDY).read_text(encoding="utf-8")
        st.download_button("study.toml", text, "study.toml", "application/toml", key="study.toml", **shared)
        words = (folder.root / MANIFEST).read_text(encoding="utf-8")
        st.download_button("manifest.json", words, "manifest.json", "application/json", key="study.manifest", **shared)
        if there:
            st.download_button(
                "Measures as CSV", lambda: csv(folder), "measures.csv", "text/csv", key="study.csv", **shared
            )
            st.download_button(
                "Measures as Parquet", lambda: parquet(folder), "measures.parquet", key="study.parquet", **shared
            )
            st.download_button(
                "Report", lambda: report(folder), "report.html", "text/html", key="study.report", **shared
            )
    st.caption("One row per image, cell and metric. On the command line the same study is")
    st.code(manifest["command"], language="bash", wrap_lines=True)
    st.caption("and this address opens it here:")
    st.code(link.address(), language=None, wrap_lines=True)
    _provenance(manifest)


def report(folder: StudyFolder) -> bytes:
    """The whole study as one HTML file that can be mailed; made when it is asked for."""
    from audit_core.study.report import document  # draws with matplotlib, which the page does not need

    return document(folder.root, ".html")


def csv(folder: StudyFolder) -> bytes:
    """All measures as CSV."""
    return measures(folder).to_pandas().to_csv(index=False).encode()


def parquet(folder: StudyFolder) -> bytes:
    """All measures as Parquet."""
    out = io.BytesIO()
    pq.write_table(measures(folder), out, compression="zstd")
    return out.getvalue()


def measures(folder: StudyFolder) -> pa.Table:
    """All parts as far as they are there, in the fixed order of an export."""
    return tables.merge(opening.files_of(folder.root, "measures"), tables.MEASURES, tables.ORDER)


def _provenance(manifest: Mapping[str, Any]) -> None:
    with st.expander("How this was computed", icon=":material/history:"):
        made = f"Begun {manifest['created']} on {manifest['machine']}, Triplecheck {manifest['triplecheck']}."
        st.markdown(wording.plain(made))
        if manifest.get("note"):
            st.markdown(wording.plain(manifest["note"]))
        st.code(json.dumps(manifest["versions"], indent=1), language="json")
        for checkpoint in manifest["checkpoints"]:
            digest = checkpoint["weights_sha256"][:16]
            st.caption(wording.plain(f"{checkpoint['name']}: {checkpoint['architecture']}, weights sha256 {digest}…"))
