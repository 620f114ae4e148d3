"""Which groups of engines are there? One for each base model of each pool, as the fleet is now.

The group of a pool that was removed is kept until all that runs there has ended. A pool of its name that
comes meanwhile goes on with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fleet.types import Fleet
from routing.scheduling.group import Group
from routing.scheduling.profile import Profile
from routing.scheduling.state import Engine
from routing.types import Target

Place = tuple[str, str]  # pool, base model


class Groups:
    """The groups of one gateway."""

    def __init__(self, profile: Profile) -> None:
        self.present: dict[Place, Group] = {}
        self.leaving: dict[Place, Group] = {}
        self._profile = profile

    def __iter__(self) -> Iterator[Group]:
        """Give all of them, those that leave too."""
        yield from self.present.values()
        yield from self.leaving.values()

    def find(self, target: Target) -> Group | None:
        """Return the group that may serve a target, if anything of it is here."""
        place = target.pool, target.base_model
        return self.present.get(place) or self.leaving.get(place)

    def of_target(self, target: Target) -> Group:
        """Return the group that may serve a target. Raises `LookupError` where nothing of it is here."""
        place = target.pool, target.base_model
        return self.present.get(place) or self.leaving[place]

    def of(self, engine: Engine) -> Group:
        """Return the group of an engine that takes part, or runs something."""
        place = engine.replica.pool, engine.base_model
        return self.present.get(place) or self.leaving[place]

    def take_fleet(self, fleet: Fleet, *, late: bool) -> None:
        """Have the groups of another fleet. `late`: the gateway serves already, and waits for no new one."""
        pools = {(pool.name, model): pool for pool in fleet.pools.values() for model in pool.base_models}
        known = {**self.leaving, **self.present}
        self.leaving = {place: group for place, group in known.items() if place not in pools}
        for group in self.leaving.values():
            group.members.take({})  # nobody's requests may begin there
        self.present = {
            place: known.get(place) or Group(fleet, pool, place[1], self._profile, is_new=late)
            for place, pool in pools.items()
        }

    def forget_left(self, running: Collection[Engine]) -> None:
        """Forget those that leave and of which nothing is here; `running` engines have left and run on."""
        if self.leaving:
            busy = [self.of(engine) for engine in running]
            self.leaving = {
                place: group
                for place, group in self.leaving.items()
                if group.tickets or group.engines or group in busy
            }
