"""The display of a run: its phases, how far it is, the time that remains, and what it writes where."""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from rich.console import Console
from sources import modules
from tiny import MODELS

import onnxfold
from onnxfold import progress
from onnxfold.progress import Display, Phase, Title, display, on_terminal, silent
from onnxfold.progress.course import _OPENS, _PARTS, Course
from onnxfold.progress.lines import line, spoken
from onnxfold.progress.screen import Drawn

FOLD = (Phase.ANALYZE, Phase.INPUTS, Phase.SENSITIVITY, Phase.PLAN, Phase.RECONSTRUCT, Phase.CHECK)


class Time:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def course(time: Time) -> Course:
    made = Course(time)
    made.begin(FOLD)
    return made


def turned(course: Course, title: str, turns: int, of: int) -> None:
    """A loop that is left open after some turns."""
    course.turned(course.opened(title, of), turns)


# how far, and how long -----------------------------------------------------------------------------------------------


def test_counts_of_work_decide_what_a_phase_weighs(course: Course, time: Time) -> None:
    course.expect({phase: 1.0 for phase in FOLD} | {Phase.PLAN: 15.0})  # 20 in all
    with course.within((Phase.ANALYZE,)):
        time.now = 100.0  # however long it took
    with course.within((Phase.INPUTS,)):
        assert course.view().done == pytest.approx(1 / 20)
    with course.within((Phase.SENSITIVITY, Phase.PLAN, Phase.RECONSTRUCT)):
        assert course.view().done == pytest.approx(2 / 20)
        turned(course, "trying plans", 12, 24)
        assert course.view().done == pytest.approx((3 + 15 * _PARTS["trying plans"] / 2) / 20)


def test_loops_tell_which_phase_of_a_pass_it_is(course: Course) -> None:
    with course.within((Phase.SENSITIVITY, Phase.PLAN, Phase.RECONSTRUCT)):
        seen = []
        for title in ("measuring sensitivity", "measuring groups", "trying plans", "reconstructing", "trying plans"):
            loop = course.opened(title, 3)
            course.opened("reconstructing", 5)  # within another loop, it is part of that
            seen.append(course.view().phase)
            course.closed(loop)
    assert seen == ["sensitivity", "plan", "plan", "reconstruct", "reconstruct"]  # never back


def test_it_never_goes_back(course: Course, time: Time) -> None:
    seen = []
    with course.within((Phase.SENSITIVITY, Phase.PLAN, Phase.RECONSTRUCT)):
        for title in ("measuring groups", "trying budgets", "timing", "reconstructing", "reconstructing"):
            loop = course.opened(title, 4)
            for done in range(5):
                course.turned(loop, done)
                for inner in ("reconstructing", "reconstructing"):
                    turned(course, inner, 1, 2)
                    seen.append(course.view().done)
            course.closed(loop)
        course.expect({Phase.CHECK: 1000.0})  # more is left than was known
        seen.append(course.view().done)
    assert seen == sorted(seen) and len(set(seen)) > 10 and seen[-1] < 1


def test_a_guess_before_the_estimate_holds_nothing_up(course: Course) -> None:
    """Before anything is known all phases weigh alike: one of six is a sixth, until it turns out to be the least."""
    with course.within((Phase.ANALYZE,)):
        pass
    with course.within((Phase.ANALYZE,)):
        turned(course, "reading", 1, 1)
    assert course.view().done > 0.05
    course.expect(dict.fromkeys(FOLD, 1.0) | {Phase.PLAN: 95.0})
    assert course.view().done < 0.02


def test_loops_inside_a_turn_follow_each_other(course: Course) -> None:
    """The first of them is not all of the turn: what follows moves on from there."""
    with course.within((Phase.INPUTS,)):
        outer, seen = course.opened("folding to targets", 2), []
        for turn in range(2):
            course.turned(outer, turn)
            for title in ("measuring groups", "trying plans", "reconstructing"):
                loop = course.opened(title, 4)
                for done in range(5):
                    course.turned(loop, done)
                    seen.append(course.view().done)
                course.closed(loop)
        assert seen == sorted(seen) and len(set(seen)) >= 24
        gone = (np.array(seen) - seen[0]) / (seen[-1] - seen[0])
        assert gone[4] < 0.2 and gone[14] < 0.6 and np.diff(gone).max() < 0.1


def test_loops_that_say_what_they_take_share_a_phase() -> None:
    """Chains of steps: whatever is allowed, the last loop has its part, and none stands at the end before it begins."""
    course = Course()
    course.begin((Phase.MODELS,))
    with course.within((Phase.MODELS,)):
        for part, before in ((0.25, 0.0), (0.5, 0.25), (1.0, 0.625)):
            assert course.view().done == pytest.approx(before)
            loop = course.opened(Title.taking(part, "making"), 2)
            course.turned(loop, 2)
            course.closed(loop)
    assert 0.97 < course.view().done < 1


def test_the_bar_moves_with_every_step_of_a_training_inside_a_turn() -> None:
    """Nearly all of the turn is training, and what the others take is left for them."""
    course = Course()
    course.begin((Phase.MODELS,))
    with course.within((Phase.MODELS,)):
        outer = course.opened(Title.taking(1.0, "training folds"), 2)
        first = course.opened(Title.taking(0.25, "in floats"), 1)
        course.turned(first, 1)
        course.closed(first)
        begin, seen = course.view().done, []
        training = course.opened(Title("training"), 40)
        for done in range(41):
            course.turned(training, done)
            seen.append(course.view().done)
        assert begin == pytest.approx(0.125, abs=0.01) and seen[-1] == pytest.approx(0.48, abs=0.02)
        assert min(np.diff(seen)) > 0.008
        course.turned(outer, 1)
        assert course.view().done == pytest.approx(0.49, abs=0.01)


def test_the_rest_is_corrected_by_how_long_the_part_that_is_done_took(course: Course, time: Time) -> None:
    course.expect({Phase.ANALYZE: 0.0, **dict.fromkeys(FOLD[1:], 20.0)})
    with course.within((Phase.INPUTS,)):
        assert course.view().remaining == pytest.approx(100, abs=1)
        time.now = 60.0  # three times as long as was expected
    with course.within((Phase.SENSITIVITY,)):
        remaining = course.view().remaining
        assert remaining is not None and 140 < remaining < 240  # towards 3 * 80: one phase alone is not all trusted
        turned(course, "measuring sensitivity", 95, 100)
        time.now = 70.0  # 10 seconds for nine tenths
        later = course.view().remaining
        assert later is not None and later < remaining
        assert later == pytest.approx(60 * 1.4, rel=0.25)


def test_without_an_estimate_nothing_is_promised(course: Course, time: Time) -> None:
    with course.within((Phase.ANALYZE,)):
        time.now = 5.0
        assert course.view().remaining is None and course.view().elapsed == 5.0


def test_a_pipeline_in_a_loop_changes_no_phase() -> None:
    course = Course()
    course.begin((Phase.ANALYZE, Phase.MODELS))
    with course.within((Phase.MODELS,)):
        turned(course, "folding to targets", 1, 6)
        course.begin(FOLD)
        with course.within((Phase.CHECK,)):
            turned(course, "timing", 1, 2)
            assert course.view().doing == ("folding to targets 2/6", "timing 2/2")
        assert course.view().doing == ("folding to targets 2/6",)  # what was left open is over
        assert course.view().phases == (Phase.ANALYZE, Phase.MODELS) and course.view().phase == "models"


# what is shown -------------------------------------------------------------------------------------------------------


def drawn(course: Course, width: int, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False).print(Drawn(course))
    file.seek(0)
    return file.read().splitlines()


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_line_wraps(course: Course, time: Time, width: int, encoding: str) -> None:
    course.expect(dict.fromkeys(FOLD, 4000.0))
    time.now = 12000.0
    with course.within((Phase.SENSITIVITY, Phase.PLAN)):
        turned(course, "measuring \x1b[31m" + "x" * 300, 3, 100)
        lines = drawn(course, width, encoding)
    assert len(lines) == 3 and max(map(len, lines)) <= width and "\x1b" not in "".join(lines)
    if width >= 80:
        assert "reconstruct" in lines[0] and "check" in lines[0] and " %  3:20:00, about " in lines[1]
    assert encoding != "ascii" or "".join(lines).isascii()


def test_a_line_for_a_log(course: Course, time: Time) -> None:
    course.expect(dict.fromkeys(FOLD, 10.0))
    assert line(course.view()) == "starting, 0 % done"
    with course.within((Phase.SENSITIVITY, Phase.PLAN)):
        time.now = 30.0
        turned(course, "trying plans", 2, 24)
        assert line(course.view()) == "plan: trying plans 3/24, 51 % done, about 30 s left"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.1, "5 s"), (32, "30 s"), (54, "55 s"), (56, "1 min"), (140, "2 min"), (4800, "1 h 20 min")],
)
def test_about_how_long(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


def test_nothing_but_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "EVERY", 0.01)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    seen = ""
    for _ in on_terminal("counting", range(200)):
        if seen := capsys.readouterr().err:
            break
        display.threading.Event().wait(0.01)
    assert seen.startswith("onnxfold: ") and "counting " in seen and "\x1b" not in seen
    capsys.readouterr()
    assert list(silent("counting", range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(display, "DELAY", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    title = Title("training")
    for step in on_terminal(title, range(3)):
        title.now = f"training (loss {step})"
        progress.announced("about 5 minutes")
        display.threading.Event().wait(0.5)
    text = capsys.readouterr().err
    assert "training (loss 1) 2/3" in text and text.count("about 5 minutes") == 3
    assert text.rstrip().endswith("\x1b[2K") and text.count("\x1b[?25h") == 1  # cleared, and the cursor is back


def test_a_second_display_stays_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown(on_terminal) as first:
        assert isinstance(first, Display)
        with progress.shown(on_terminal) as second:
            assert second is silent
    assert Display.current is None
    with progress.shown(silent) as given:
        assert given is silent and list(progress.steps("deep below", [1, 2])) == [1, 2]


# a whole run ---------------------------------------------------------------------------------------------------------


class Watched(Display):
    """Notes every phase and title."""

    def __init__(self) -> None:
        super().__init__(display.Lines())
        self.seen = list[tuple[str, str]]()

    def __call__(self, what: str, items: Sequence[object]) -> Iterator[object]:  # type: ignore[override]
        for item in super().__call__(what, items):
            view = self.course.view()
            self.seen.append((view.phase, view.doing[0]))
            yield item


def test_a_fold_goes_through_its_phases() -> None:
    watched = Watched()
    images = {"image": np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)}
    model = MODELS / "digits_mlp.onnx"
    onnxfold.fold(model, target_macs=0.6, calibration=images, progress=watched, latency=False)
    assert watched.course.view().phases == FOLD and watched.course.view().phase == "check"
    order = list(dict.fromkeys(phase for phase, _ in watched.seen))
    assert [FOLD.index(Phase(one)) for one in order] == sorted(FOLD.index(Phase(one)) for one in order)
    assert {"sensitivity", "plan", "reconstruct"} <= set(order)


def test_titles_that_mean_something_exist() -> None:
    """A title that is spelled in another way somewhere would silently lose its place."""
    used = set[str]()
    for file, _ in modules().values():
        calls = [
            node
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and node.args
        ]
        texts = [call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)]
        used.update(text for text in texts if isinstance(text, str))
    assert {*_OPENS, *_PARTS} <= used
    assert sys.modules["onnxfold.progress"] is progress
