"""Processes that compute rewards and may crash or hang without harm.

They are programs of their own and not multiprocessing's, which would import the user's script, and torch with it, into each.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from quatrain.config import RewardConfig

MOST_WORKERS = 8
START_SECONDS = 300.0
"""A worker that has not imported everything after this time never will."""

Call = tuple[int, dict[str, Any]]
"""Which of the rewards, and the facts that it wants."""
Verdict = float | list[float] | str
"""The reward of the answer that the call is about, those of all of them, or why there is none."""


class Pool:
    """Workers that all know the rewards `configs`. They start in the background, and a lost one is replaced.

    Each shares one socket with this process and nothing else, and ends with it, however it ends.
    """

    def __init__(self, configs: Sequence[RewardConfig], workers: int | None = None) -> None:
        self._configs = list(configs)
        self._folder = os.getcwd()  # the rewards' relative paths start here, wherever the run goes later
        self._closed = False
        count = min(MOST_WORKERS, workers or os.cpu_count() or 1)
        self._workers: set[_Worker] = set()
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(self._start())
        self._threads = ThreadPoolExecutor(count, "judge")

    def compute(self, calls: Sequence[Call]) -> list[Verdict]:
        """The verdict on each of `calls`, in their order. Each call has its reward's time limit for itself."""
        return list(self._threads.map(self._compute, calls))

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        self._closed = True
        for worker in self._workers.copy():
            worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def _start(self) -> _Worker:
        worker = _Worker(self._configs, self._folder)
        self._workers.add(worker)
        return worker

    def _replace(self, worker: _Worker) -> _Worker:
        worker.close()
        self._workers.discard(worker)
        return self._start()

    def _compute(self, call: Call) -> Verdict:
        worker = self._idle.get()
        try:
            if worker.process.poll() is not None and not self._closed:
                worker = self._replace(worker)  # it died between two calls, for which the next one is not to blame
            return worker.call(call, self._configs[call[0]].timeout_seconds)
        except _LostError as lost:
            if not self._closed:
                worker = self._replace(worker)
            return str(lost)
        finally:
            self._idle.put(worker)


class _LostError(Exception):
    """A worker that is of no use any more, and why."""


class _Worker:
    """One process, and this end of its socket."""

    def __init__(self, configs: Sequence[RewardConfig], folder: str) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "quatrain.rewards.worker"],
                stdin=theirs.fileno(),
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or folder for path in sys.path), "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for the run, which then ends its workers
            )
        self.lines = self.socket.makefile("rw", encoding="utf-8", newline="\n")
        self.ready = False
        with contextlib.suppress(OSError):  # a worker that is dead already is found out by its first call
            self._send([config.model_dump(mode="json") for config in configs])

    def call(self, call: Call, timeout_seconds: float) -> Verdict:
        """The worker's verdict. Raises _LostError if it gives none in time."""
        if not self.ready:
            self._await_start()
        self.socket.settimeout(timeout_seconds)
        try:
            self._send({"reward": call[0], "facts": call[1]})
            answer = self.lines.readline()
        except TimeoutError:
            raise _LostError(f"it took longer than {timeout_seconds:g} s") from None
        except OSError:
            answer = ""
        if not answer:
            raise _LostError(f"its process died (exit code {self.process.wait()})")
        verdict = json.loads(answer)
        return verdict["error"] if "error" in verdict else verdict["value"]

    def _await_start(self) -> None:
        self.socket.settimeout(START_SECONDS)
        with contextlib.suppress(OSError):
            self.ready = bool(self.lines.readline())
        if not self.ready:
            raise RuntimeError("a process that computes rewards could not start: see its message above")

    def kill(self) -> None:
        """End the process, and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        self.process.wait()
        with contextlib.suppress(OSError):  # what was being sent is lost
            self.lines.close()
        self.socket.close()

    def _send(self, message: Any) -> None:
        self.lines.write(json.dumps(message) + "\n")
        self.lines.flush()
