"""The table component: real buttons in a real table, so that keyboard, screen reader and phone reach every cell.

All words come as data and are set as text, never as markup.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from pages.ui import study_link

KEY = "study.grid"
_HTML = """
<div class="scroll"><table><caption></caption><thead></thead><tbody></tbody></table></div>
<p class="told" aria-live="polite"></p>
<div class="legend"><span class="low"></span><span class="bar" aria-hidden="true"></span><span class="high"></span>
<span class="title"></span></div>
"""
_CSS = """
:host { display: block }
* { box-sizing: border-box }
.scroll { overflow-x: auto }
table { border-collapse: separate; border-spacing: 2px; width: 100%; table-layout: fixed;
  max-width: calc(378px + var(--columns) * 240px); font: 14px/1.25 var(--st-font), sans-serif;
  color: var(--st-text-color) }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
thead th { font-weight: 600; text-align: center; vertical-align: bottom; padding: 4px; overflow-wrap: anywhere }
thead th:first-child { width: 230px }
thead th.verdict { width: 148px }
tbody th { text-align: left; font-weight: 400; padding: 2px 8px 2px 12px; overflow-wrap: anywhere;
  position: sticky; left: 0; background: var(--st-background-color) }
tbody th.family { font-weight: 600; padding: 10px 8px 2px 0 }
tbody th small { color: var(--muted); display: block; font-size: 12px }
.control th, .control button { color: var(--muted) }
td { padding: 0; height: 36px }
button { all: unset; box-sizing: border-box; width: 100%; height: 100%; min-height: 36px; display: flex;
  flex-direction: column; align-items: center; justify-content: center; cursor: pointer; border-radius: 4px;
  font-variant-numeric: tabular-nums }
button small { font-size: 11px; opacity: .85 }
button:hover { outline: 2px solid var(--muted) }
button:focus-visible { outline: 3px solid var(--st-primary-color) }
button.chosen { outline: 3px solid var(--st-text-color); outline-offset: -1px }
.control button.number { background: var(--st-secondary-background-color) }
button.refused, button.sick, button.failed { background: repeating-linear-gradient(45deg,
  transparent 0 5px, color-mix(in srgb, var(--muted) 38%, transparent) 5px 7px); color: var(--st-text-color) }
button.waiting { border: 1px dashed color-mix(in srgb, var(--muted) 50%, transparent) }
.corner { text-align: left }
.verdict { white-space: nowrap; font-size: 13px; text-align: left; padding-left: 8px }
.verdict button { align-items: flex-start; cursor: help; padding: 0 6px }
:host { --muted: color-mix(in srgb, var(--st-text-color) 62%, var(--st-background-color)) }
.told { min-height: 3.9em; margin: 6px 0 2px; font: 14px/1.3 var(--st-font), sans-serif; color: var(--muted) }
.legend { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; font: 13px/1.3 var(--st-font), sans-serif;
  color: var(--muted) }
.bar { width: 140px; height: 12px; border-radius: 3px }
@media (max-width: 640px) { table { font-size: 13px; width: calc(232px + var(--columns) * 66px) }
  .told { min-height: 5.2em } thead th { font-size: 12px } thead th:first-child { width: 118px }
  thead th.verdict { width: 114px } tbody th { padding-left: 4px } }
"""
_JS = """
const make = (tag, text, name) => {
  const e = document.createElement(tag)
  if (text) e.textContent = text
  if (name) e.className = name
  return e
}
export default function ({ data, parentElement, setTriggerValue }) {
  const find = s => parentElement.querySelector(s)
  const told = find(".told")
  const active = parentElement.activeElement?.dataset?.id
  const tell = text => { told.textContent = text || data.hint }
  find("table").style.setProperty("--columns", data.columns.length)
  find("caption").textContent = data.caption
  const head = make("tr")
  const corner = make("th", "Contender", "corner"); corner.scope = "col"; head.append(corner)
  for (const name of data.columns) { const th = make("th", name); th.scope = "col"; head.append(th) }
  if (data.verdicts) head.append(make("th", "Verdict", "verdict"))
  find("thead").replaceChildren(head)
  const button = (cell, name) => {
    const b = make("button", cell.text, name)
    b.type = "button"
    if (cell.sub) b.append(make("small", cell.sub))
    b.dataset.id = cell.id
    b.title = cell.tip
    b.setAttribute("aria-label", cell.tip)
    b.onmouseenter = b.onfocus = () => tell(cell.tip)
    return b
  }
  const body = []
  for (const row of data.rows) {
    const tr = make("tr", "", row.control ? "control" : "")
    const th = make("th", row.heading || row.label, row.heading ? "family" : "")
    th.scope = row.heading ? "rowgroup" : "row"
    if (row.heading) { th.colSpan = data.columns.length + 1 + data.verdicts; tr.append(th); body.push(tr); continue }
    if (row.badge) { const s = make("small", row.badge); s.title = row.why || ""; th.append(s) }
    tr.append(th)
    for (const cell of row.cells) {
      const td = make("td"), chosen = cell.id === data.chosen
      const b = button(cell, cell.state + (chosen ? " chosen" : ""))
      b.setAttribute("aria-pressed", chosen)
      if (cell.background) { b.style.background = cell.background; b.style.color = cell.color }
      b.onclick = () => { tell(cell.tip); setTriggerValue("picked", cell.id) }
      td.append(b)
      tr.append(td)
    }
    if (data.verdicts) {
      const td = make("td", "", "verdict")
      if (row.verdict) td.append(button({ ...row.verdict, id: "verdict " + row.family + row.label }, "word"))
      tr.append(td)
    }
    body.push(tr)
  }
  find("tbody").replaceChildren(...body)
  if (active) [...parentElement.querySelectorAll("button")].find(b => b.dataset.id === active)?.focus()
  find(".scroll").onmouseleave = () => tell("")
  if (!told.textContent) tell("")
  find(".low").textContent = data.legend.low
  find(".high").textContent = data.legend.high
  find(".title").textContent = data.legend.title
  find(".bar").style.background = "linear-gradient(to right, " + data.legend.stops.join(", ") + ")"
}
"""
_TABLE = st.components.v2.component("study_table", html=_HTML, css=_CSS, js=_JS)


def draw(data: dict[str, Any], known: set[str]) -> None:  # Any: JSON data
    """Draw the table; a click on one of the ``known`` cells makes it the page's cell."""

    def take() -> None:
        picked = st.session_state.get(KEY, {}).get("picked")
        if picked in known:  # the browser is not trusted
            st.session_state[study_link.CELL] = picked

    _TABLE(key=KEY, data=data, on_picked_change=take)
