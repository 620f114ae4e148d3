"""How long until a model would be awake? From the turns that go before; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from routing.turns.view import TURN_ANSWERS, AwakeModel, Host, TurnSettings


def until_awake_s(
    now_s: float, model: str, hosts: Sequence[Host], before: Iterable[str], settings: TurnSettings
) -> float | None:
    """Seconds until a model is awake and takes requests; None where it can come nowhere.

    `before` are the models that are awake nowhere and have waited longer.
    """
    able = [host for host in hosts if model in host.switch_s]
    here_s = _here_s(model, able)
    if here_s is not None or not able:
        return here_s
    switch_s = min(host.switch_s[model] for host in able)
    turn_s = switch_s + TURN_ANSWERS * settings.answer_s
    frees = sorted(free for host in able for free in _frees(now_s, host, settings))
    rounds, place = divmod(len(set(before) - {model}), max(1, len(frees)))
    return frees[place] + turn_s * rounds + switch_s if frees else None


def _here_s(model: str, hosts: Sequence[Host]) -> float | None:
    """Seconds until a model that is awake, or comes, takes requests; None: it is neither."""
    coming = [host.coming_s for host in hosts if host.coming == model]
    awake = (each for host in hosts for each in host.awake)
    if any(each.model == model and not each.shut for each in awake):
        return 0.0
    return min(coming, default=None)


def _frees(now_s: float, host: Host, settings: TurnSettings) -> Iterable[float]:
    """Seconds until each place of a host comes free."""
    base_s = host.coming_s if host.coming is not None else 0.0
    if host.coming is not None:
        yield base_s + TURN_ANSWERS * settings.answer_s
    for awake in host.awake:
        yield base_s + max(awake.drain_s, _least_left_s(now_s, host, awake, settings))
    for _ in range(host.most_awake - len(host.awake) - (host.coming is not None)):
        yield base_s


def _least_left_s(now_s: float, host: Host, awake: AwakeModel, settings: TurnSettings) -> float:
    """Seconds until a turn that is used may end."""
    if not awake.running or awake.shut:
        return 0.0
    least_s = host.switch_s.get(awake.model, 0.0) if settings.min_s is None else settings.min_s
    return max(0.0, awake.since_s + least_s - now_s)
