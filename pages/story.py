"""Story: one minute for stakeholders, five screens, arrow keys."""

import streamlit as st

from pages.ui import shell

shell.through_app("story")

with st.spinner("Opening the story (first use takes some seconds) …"):
    from pages.ui import story_map, story_nav, story_study

step = story_nav.current()
with story_nav.screen():
    story_nav.bar(step)
    if step <= story_map.STEPS:
        story_map.draw(step)
    else:
        story_study.draw(step)
