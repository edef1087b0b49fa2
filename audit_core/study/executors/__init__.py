"""Ways to do the tasks of a study. One line here is all that a new one needs."""

from audit_core.study.executors import serial as serial  # isort: skip  (the first is the menus' default)
from audit_core.study.executors import processes as processes
from audit_core.study.executors import ray_cluster as ray_cluster
from audit_core.study.executors.base import EXECUTORS as EXECUTORS
from audit_core.study.executors.base import Executor as Executor
