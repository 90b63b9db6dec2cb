"""Progress as a terminal and as a log show it."""

import io

import pytest
from rich.console import Console

from quatrain.diagnostics import progress as module
from quatrain.diagnostics.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when told to: ``clock.append(now)``."""
    times = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: times[-1])
    return times


def log():
    return Console(file=io.StringIO(), force_terminal=False, width=80)


def test_a_log_holds_plain_lines(clock):
    console = log()
    with Progress(40, "grpo on chain_sum", console=console) as progress:
        with progress.stage("loading the model"):
            clock.append(3.0)
        for step in range(1, 41):
            with progress.stage("writing answers", keep=False):
                clock.append(clock[-1] + 1.0)
            progress.step(
                step, {"reward/mean": step / 100, "rollout/length": 12, "held_out/accuracy": 0.5 if step == 1 else None}
            )
        progress.note("checkpoint [step 40]")
    lines = console.file.getvalue().splitlines()
    assert lines[:3] == ["grpo on chain_sum", "  loading the model …", "✓ loading the model 3.0 s"]
    assert lines[3] == "step 1/40  reward 0.010  held-out 50.0%  length 12.0  39.0 s left"
    assert lines[4].startswith("step 6/40  reward 0.060  held-out 50.0%")
    assert lines[-2] == "step 40/40  reward 0.400  held-out 50.0%  length 12.0"
    assert lines[-1] == "checkpoint [step 40]"
    assert len(lines) == 3 + 9 + 1
    assert "\x1b" not in console.file.getvalue()


def test_a_failed_stage_is_marked(clock):
    console = log()
    with pytest.raises(OSError, match="gone"), Progress(1, "run", console=console) as progress, progress.stage("loading"):
        raise OSError("gone")
    assert "✗ loading 0.0 s" in console.file.getvalue()


def test_a_resumed_run_counts_only_its_own_steps(clock):
    console = log()
    with Progress(100, "run", done=50, console=console) as progress:
        with progress.stage("loading"):
            clock.append(100.0)
        clock.append(102.0)
        progress.step(51, {})
    assert console.file.getvalue().splitlines()[-1] == "step 51/100  1 min 38 s left"


def test_steps_that_come_in_bursts_are_counted_from_the_start(clock):
    console = log()
    with Progress(100, "runs", console=console, in_bursts=True) as progress:
        with progress.stage("starting"):
            clock.append(10.0)
        for step in range(1, 26):
            progress.step(step, {})
        clock.append(100.0)
        for step in range(26, 51):
            progress.step(step, {})
    assert console.file.getvalue().splitlines()[-1] == "step 26/100  4 min 45 s left", "100 seconds for 26 steps"


def test_a_terminal_has_a_live_area():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, legacy_windows=False, _environ={"TERM": "xterm"})
    with Progress(4, "run", console=console) as progress:
        with progress.stage("loading"):
            pass
        progress.step(1, {"reward/mean": 0.25, "tokens_per_second": 1234})
    text = console.file.getvalue()
    for expected in ("✓", "loading", "1/4", "0.250", "1,234", "left"):
        assert expected in text


def test_a_stream_that_cannot_show_a_character_does_not_end_the_run():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with Progress(1, "grpo → runs", console=Console(file=stream)) as progress, progress.stage("loading"):
        pass
    stream.seek(0)
    assert "grpo ? runs" in stream.read()


def test_the_log_is_flushed_at_once():
    class Stream(io.StringIO):
        flushed = ""

        def flush(self):
            self.flushed = self.getvalue()

    stream = Stream()
    with Progress(1, "run", console=Console(file=stream)) as progress:
        progress.note("a warning")
        assert stream.flushed.endswith("a warning\n")


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.24, "8.2 s"), (125.0, "2 min 05 s"), (3600.0, "1 h 00 min"), (3720.0, "1 h 02 min")]
)
def test_duration(seconds, text):
    assert module._duration(seconds) == text
