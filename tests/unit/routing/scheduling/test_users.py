"""Which user of a tenant is next, and how long is it remembered what it had?"""

from __future__ import annotations

from routing.scheduling import users
from routing.scheduling.users import MOST_USERS, User, Users


def wait(crowd: Users, name: str) -> User:
    """Let a user wait somewhere."""
    user = crowd.begin_to_wait(name)
    user.flows[object()] = None
    return user


def leave(crowd: Users, user: User) -> None:
    """Let nothing of it wait."""
    user.flows.clear()
    crowd.end_waiting(user)


def test_who_begins_to_wait_has_saved_up_nothing() -> None:
    crowd = Users()
    busy = wait(crowd, "busy")
    for _ in range(3):
        crowd.serve("busy", 100.0, 1.0)
    assert busy.service == 300.0
    assert wait(crowd, "new").service == 200.0  # the virtual time: what the last one had when it was served


def test_who_leaves_ahead_of_the_others_is_remembered_until_they_have_caught_up() -> None:
    crowd = Users()
    greedy, other = wait(crowd, "greedy"), wait(crowd, "other")
    leave(crowd, greedy)
    crowd.serve("greedy", 1000.0, 1.0)
    assert wait(crowd, "greedy") is greedy and greedy.service == 1000.0
    leave(crowd, greedy)
    crowd.serve("other", 1000.0, 2.0)
    crowd.serve("other", 1.0, 3.0)
    assert len(crowd) == 1 and crowd.waiting == 1  # coming back it would have what it has now
    assert wait(crowd, "greedy").service == 1000.0 and other.service == 1001.0


def test_a_correction_of_one_that_was_forgotten_changes_nothing_for_who_has_its_name_now() -> None:
    crowd = Users()
    wait(crowd, "other")
    charged = crowd.serve("brief", 10.0, 1.0)
    crowd.serve("other", 100.0, 2.0)
    crowd.serve("other", 100.0, 3.0)
    charged.service -= 10_000.0
    assert wait(crowd, "brief").service == 100.0


def test_beyond_the_bound_the_longest_idle_is_forgotten_and_else_newcomers_are_one_user() -> None:
    crowd = Users()
    waiting = [wait(crowd, f"u{number}") for number in range(MOST_USERS - 1)]
    crowd.serve("idle", 5.0, 1.0)
    assert len(crowd) == MOST_USERS
    last = wait(crowd, "last")
    assert last not in waiting and len(crowd) == MOST_USERS == crowd.waiting  # in the place of `idle`
    one, other = wait(crowd, "one more"), wait(crowd, "yet another")
    assert one is other and crowd.waiting == MOST_USERS + 1
    assert crowd.serve("a third", 7.0, 2.0) is one
    leave(crowd, one)
    assert len(crowd) == MOST_USERS == crowd.waiting
    leave(crowd, waiting[0])
    assert wait(crowd, "in its place") is not one and len(crowd) == MOST_USERS


def test_a_million_names_take_no_more_memory_than_the_bound() -> None:
    crowd = Users()
    wait(crowd, "")
    for number in range(20 * MOST_USERS):
        crowd.serve(f"u{number}", 1.0, float(number))
    assert len(crowd) <= users.MOST_USERS
