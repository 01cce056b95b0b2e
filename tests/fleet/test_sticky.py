"""Conversations: they stay, they leave a host that is too busy, sick or drained, and they are forgotten."""

from __future__ import annotations

from arena.fleet import StickySpec
from tests.fake_ollama.clock import Clock
from tests.fleet.hosts import M, served_by, taken, three


def test_a_conversation_stays_where_it_began() -> None:
    fleet = three(strategy="least-outstanding")
    words = []
    for _ in range(3):
        with taken(fleet, conversation="c") as lease:
            words.append((lease.endpoint.name, lease.sticky))
        served_by(fleet, 1)
    assert words == [("a", "miss"), ("a", "hit"), ("a", "hit")]
    assert (fleet.sticky.hits, fleet.sticky.misses, fleet.sticky.insertions, len(fleet.sticky)) == (2, 1, 1, 1)


def test_without_a_conversation_or_under_exact_shares_nothing_sticks() -> None:
    assert taken(three()).sticky == "disabled"
    assert served_by(three(strategy="round-robin"), 3, conversation="c") == ["a", "b", "c"]
    sticky = three(strategy="round-robin", sticky=StickySpec(enabled=True))
    assert served_by(sticky, 3, conversation="c") == ["a", "a", "a"]
    assert taken(three(sticky=StickySpec(enabled=False)), conversation="c").sticky == "disabled"


def test_a_pin_is_left_when_its_host_is_much_busier_than_another() -> None:
    fleet = three(strategy="least-outstanding")
    served_by(fleet, 1, conversation="c")
    blockers = [taken(fleet, endpoint="a")]
    assert served_by(fleet, 1, conversation="c") == ["a"], "one more is no reason to leave"
    blockers.append(taken(fleet, endpoint="a"))
    with taken(fleet, conversation="c") as lease:
        assert (lease.endpoint.name, lease.sticky) == ("b", "repin")
    for blocker in blockers:
        blocker.close()
    assert served_by(fleet, 2, conversation="c") == ["b", "b"], "it is at home there now"
    assert fleet.sticky.repins == 1


def test_a_pin_is_left_when_its_host_is_sick_or_drained() -> None:
    fleet = three()
    assert served_by(fleet, 1, conversation="c") == ["a"]
    fleet.endpoint("a").health.refused()
    assert taken(fleet, conversation="c").sticky == "repin"
    fleet.drain("b", True)
    with taken(fleet, conversation="c") as lease:
        assert (lease.endpoint.name, lease.sticky) == ("c", "miss"), "draining forgets the pins"


def test_pins_end_after_a_while_without_use_and_the_oldest_go_first() -> None:
    clock = Clock()
    fleet = three(clock, sticky=StickySpec(idle_ttl_s=10, max_sessions=2))
    served_by(fleet, 1, conversation="old")
    clock.advance(9)
    served_by(fleet, 1, conversation="old")
    clock.advance(9)
    assert taken(fleet, conversation="old").sticky == "hit"
    clock.advance(10)
    assert taken(fleet, conversation="old").sticky == "miss"
    for name in ("x", "y"):
        taken(fleet, conversation=name).close()
    assert len(fleet.sticky) == 2
    assert fleet.sticky.evictions == 1
    assert taken(fleet, conversation="old").sticky == "miss"
    clock.advance(20)
    taken(fleet, conversation="x")
    assert len(fleet.sticky) == 1


def test_one_conversation_with_two_models_has_two_pins() -> None:
    fleet = three(aliases={"other": (M,)})
    taken(fleet, conversation="c")
    assert taken(fleet, "other", conversation="c").sticky == "hit", "an alias is the model it stands for"
    assert taken(fleet, None, conversation="c").sticky == "miss"
