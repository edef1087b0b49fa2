"""What the process shares: the store, the jobs, the workbench. Sessions share nothing else."""

from __future__ import annotations

import atexit
import gc
import os
import uuid
from typing import TYPE_CHECKING

import streamlit as st

from audit_core.jobs import JobManager
from audit_core.store import Store, default_directory

if TYPE_CHECKING:
    from audit_core.workbench import Workbench


@st.cache_resource(show_spinner=False, max_entries=1)
def store() -> Store:
    """Finished audits, maps, uploads and brought checkpoints, by content."""
    return Store(default_directory())


@st.cache_resource(show_spinner=False, max_entries=1, on_release=lambda manager: manager.shutdown())
def jobs() -> JobManager:
    """All running and waiting work."""
    return JobManager(abandon_after=180.0)  # a browser lets a hidden tab ask only once a minute


@st.cache_resource(show_spinner="Starting the engine (first use takes some seconds) …", max_entries=1)
def bench() -> Workbench:
    """Checkpoints and images; the first call imports torch."""
    import torch

    from audit_core.workbench import Workbench

    # The web server needs a core, else pages answer late while an audit runs.
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    found = Workbench(store())
    # Streamlit collects garbage after every script run, with every poll of a job: a fifth of a second each time, the
    # interpreter held, for as long as torch's million objects are among those looked at. They stay for good: say so.
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # a process that ends looks at everything once more, as libraries expect
    return found


def owner() -> str:
    """This browser session, as the job manager knows it."""
    return st.session_state.setdefault("owner", uuid.uuid4().hex)
