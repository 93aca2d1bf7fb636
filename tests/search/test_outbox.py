"""Events on disk: in order, none lost, whenever the process is killed."""

import json
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.outbox import Outbox


def numbers(events: list[dict[str, object]]) -> list[object]:
    return [event["number"] for event in events]


def test_events_come_in_the_order_in_which_they_were_said(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for number in range(5):
        outbox.append({"number": number})
    assert numbers(outbox.waiting(most=3, seconds=0)) == [0, 1, 2]
    outbox.delivered(2)
    assert numbers(outbox.waiting(most=9, seconds=0)) == [2, 3, 4]
    assert len(outbox) == 3


def test_an_event_is_on_disk_before_append_returns(tmp_path: Path) -> None:
    Outbox(tmp_path).append({"number": 7})
    assert json.loads((tmp_path / "events.jsonl").read_text()) == {"number": 7}


def test_what_was_not_delivered_waits_for_the_next_process(tmp_path: Path) -> None:
    first = Outbox(tmp_path)
    for number in range(4):
        first.append({"number": number})
    first.delivered(3)
    second = Outbox(tmp_path)
    assert numbers(second.history) == [0, 1, 2, 3]
    assert numbers(second.waiting(9, seconds=0)) == [3]
    second.append({"number": 4})
    assert numbers(Outbox(tmp_path).waiting(9, seconds=0)) == [3, 4]


@pytest.mark.parametrize("torn", [b"{", b'{"number": 2', b'{"number": 2}', b"\xff\x00"])
def test_a_line_that_a_kill_cut_off_is_no_event_and_spoils_none_after_it(
    tmp_path: Path, torn: bytes
) -> None:
    Outbox(tmp_path).append({"number": 1})
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(torn)
    outbox = Outbox(tmp_path)
    assert numbers(outbox.history) == [1]
    outbox.append({"number": 3})
    assert numbers(Outbox(tmp_path).history) == [1, 3]


def test_files_of_an_event_go_with_its_delivery(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    names = []
    for text in ("a", "b"):
        names.append(outbox.new_folder())
        (tmp_path / "files" / names[-1] / "text").write_text(text)
        outbox.append({"number": text, "files": names[-1]})
    assert names == ["0", "1"]
    first, second = outbox.waiting(2, seconds=0)
    assert (outbox.files(first) / "text").read_text() == "a"
    outbox.delivered(1)
    assert not outbox.files(first).exists()
    assert (outbox.files(second) / "text").read_text() == "b"


def test_files_of_an_event_that_a_kill_kept_from_being_said_are_replaced(tmp_path: Path) -> None:
    left = tmp_path / "files" / Outbox(tmp_path).new_folder() / "left"
    left.write_text("of a killed process")
    outbox = Outbox(tmp_path)
    assert outbox.new_folder() == "0"
    assert not left.exists()


def test_waiting_ends_when_an_event_comes(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    assert outbox.waiting(1, seconds=0.01) == []
    threading.Timer(0.05, outbox.append, ({"number": 1},)).start()
    assert numbers(outbox.waiting(1, seconds=60)) == [1]
    assert not outbox.wait_until_empty(0.01)
    threading.Timer(0.05, outbox.delivered, (1,)).start()
    assert outbox.wait_until_empty(60)


def test_events_are_gathered_until_there_are_enough(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.append({"number": 0})
    threading.Timer(0.05, outbox.append, ({"number": 1},)).start()
    assert numbers(outbox.waiting(most=2, seconds=0, gather=60)) == [0, 1]


def test_nobody_gathers_while_somebody_waits_for_all_to_be_delivered(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.append({"number": 0})
    threading.Timer(0.05, outbox.wait_until_empty, (60,)).start()
    assert numbers(outbox.waiting(most=2, seconds=0, gather=60)) == [0]
    outbox.delivered(1)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(["append", "deliver", "kill", "kill in a delivery"]), max_size=30))
def test_whoever_drops_what_it_has_gets_each_event_exactly_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("outbox")
    outbox, said = Outbox(folder), 0
    received: list[object] = []  # a store that takes an event a second time without a change

    def receive() -> int:
        events = outbox.waiting(most=2, seconds=0)
        received.extend(n for n in numbers(events) if n not in received)
        return len(events)

    for step in [*steps, "deliver", "deliver"] + ["deliver"] * len(steps):
        if step == "append":
            outbox.append({"number": said})
            said += 1
        elif step == "deliver":
            outbox.delivered(receive())
        else:
            if step == "kill in a delivery":  # received, and not noted
                receive()
            outbox = Outbox(folder)
    assert received == list(range(said))
    assert len(Outbox(folder)) == 0
