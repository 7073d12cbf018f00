"""The agreement, over every interleaving of two and three ranks: the code that runs, with threads and links as a model.

A main thread writes its step, looks at the freeze, holds; an agent thread hears orders and answers; links keep order.
Between two boundaries there is a collective: a rank gets through it only when all others have begun the same step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from hpc_resume.run.ranks.agreement import BLAME, Council, Order, Phase, Report, Seat, State, Verdict

USR1 = 10


@dataclass(frozen=True, slots=True)
class Rank:
    seat: Seat
    at: str = "start"  # start, gathered, step, wrote, held, ending, left, gone (in order), dead (kill -9)
    completed: int = 0
    pinned: bool = False
    orders: tuple[Order, ...] = ()
    reports: tuple[Report | int | None, ...] = ()  # an int is a warning; None the end of the connection
    wished: bool = False


@dataclass(frozen=True, slots=True)
class World:
    council: Council
    ranks: tuple[Rank, ...]
    warnings: int
    kills: int


@dataclass(frozen=True, slots=True)
class Game:
    size: int
    steps: int
    warnings: int = 0
    kills: int = 0
    save_at: int = 0
    lockstep: bool = True
    fails: str = ""
    counted: bool = True  # steps() knows the last step; a loop of the training's own does not tell it

    def start(self) -> World:
        ranks = tuple(Rank(Seat(rank)) for rank in range(self.size))
        return World(Council.of(self.size), ranks, self.warnings, self.kills)

    # --- every move that somebody can make ------------------------------------------------------------------------

    def moves(self, world: World) -> Iterator[World]:
        for index, rank in enumerate(world.ranks):
            if rank.at == "dead":
                if rank.reports:
                    yield self.hear(world, index)
                continue
            if rank.at not in ("left", "gone"):
                yield from self.main(world, index, rank)
                if world.warnings:
                    warned = replace(rank, reports=(*rank.reports, USR1))
                    yield replace(put(world, index, warned), warnings=world.warnings - 1)
                if world.kills:
                    dead = replace(rank, at="dead", orders=(), reports=(*rank.reports, None))
                    yield replace(put(world, index, dead), kills=world.kills - 1)
                if rank.orders:
                    yield put(world, index, self.agent(rank))
            if rank.reports:
                yield self.hear(world, index)
        if world.council.patience is not None and world.ranks[0].at != "dead":
            yield spread(world, world.council.lose_patience())

    def hear(self, world: World, index: int) -> World:
        rank = world.ranks[index]
        message, *rest = rank.reports
        world = put(world, index, replace(rank, reports=tuple(rest)))
        if world.ranks[0].at == "dead":  # nobody is there who could hear it
            if index == 0 and message is None:
                for other, peer in enumerate(world.ranks):
                    if peer.at not in ("dead", "left", "gone"):
                        broken = replace(peer.seat.order, phase=Phase.LEAVE)
                        world = put(world, other, replace(peer, orders=(*peer.orders, broken)))
            return world
        council = world.council
        if message is None:
            return spread(world, council.lose(index, f"rank {index}"))
        if isinstance(message, int):
            return spread(world, council.warn(message))
        return spread(world, council.hear(index, message))

    def agent(self, rank: Rank) -> Rank:
        """The thread that hears: the freeze is set before the step is read."""
        order, *rest = rank.orders
        if rank.seat.order.is_last:
            return replace(rank, orders=tuple(rest))
        rank = replace(rank, seat=rank.seat.told(order), pinned=not order.is_idle, orders=tuple(rest))
        if order.phase is Phase.LEAVE and rank.at not in ("held", "ending"):
            return replace(rank, at="gone", reports=(*rank.reports, Report(State.LEFT)))
        state = {"held": State.HELD, "ending": State.ENDING}.get(rank.at, State.RUNNING)
        answer = rank.seat.answer(state, rank.completed, final=self.final(rank))
        return say(rank, answer) if answer else rank

    def main(self, world: World, index: int, rank: Rank) -> Iterator[World]:
        order = rank.seat.order
        if rank.at == "start":
            yield put(world, index, replace(say(rank, Report(State.READY)), at="gathered"))
        elif rank.at == "gathered" and order.phase is not Phase.GATHER:
            yield put(world, index, replace(rank, at="wrote"))
        elif rank.at == "step" and self.gets_through(world, rank):
            yield put(world, index, replace(rank, at="wrote", completed=rank.completed + 1))
        elif rank.at == "wrote":
            yield put(world, index, self.look(rank))
        elif rank.at == "held":
            if (moved := self.hold(rank)) is not None:
                yield put(world, index, moved)
        elif rank.at == "epilogue":
            report = Report(State.ENDING, order.round, rank.completed, final=True)
            yield put(world, index, replace(say(rank, report), at="ending"))
        elif rank.at == "ending" and order.phase in (Phase.END, Phase.LEAVE):
            yield put(
                world, index, replace(say(rank, Report(State.LEFT)), at="left" if order.phase is Phase.END else "gone")
            )

    def final(self, rank: Rank) -> bool:
        return self.counted and rank.completed == self.steps and rank.at != "epilogue"

    def gets_through(self, world: World, rank: Rank) -> bool:
        others = (peer for peer in world.ranks if peer is not rank)
        return not self.lockstep or all(
            peer.completed > rank.completed or (peer.completed == rank.completed and peer.at == "step")
            for peer in others
        )

    def look(self, rank: Rank) -> Rank:
        """One read of one word, and the step goes on; or a boundary that is not idle."""
        wish = rank.completed == self.save_at != 0 and not rank.wished
        if rank.pinned or wish:
            idle = rank.seat.order.is_idle
            report = Report(State.HELD, rank.seat.order.round, rank.completed, self.final(rank), wish=wish and idle)
            return replace(say(rank, report), at="held", wished=rank.wished or wish)
        return self.on(rank)

    def on(self, rank: Rank) -> Rank:
        return replace(rank, at="step" if rank.completed < self.steps else "epilogue")

    def hold(self, rank: Rank) -> Rank | None:
        verdict, order = rank.seat.at_boundary(rank.completed), rank.seat.order
        done = {Verdict.OPEN: State.OPENED, Verdict.WRITE: State.WRITTEN, Verdict.COMMIT: State.PUBLISHED}
        if verdict is Verdict.GO_ON:
            waits = rank.wished and order.is_idle and order.round == 0  # until the round that it asked for has come
            return None if waits else replace(self.on(rank))
        if verdict in done:
            failure = "no" if self.fails == verdict else ""
            report = Report(done[verdict], order.round, rank.completed, place="here", failure=failure)
            return say(replace(rank, seat=rank.seat.did(done[verdict])), report)
        if verdict is Verdict.STOP:
            return replace(say(rank, Report(State.LEFT)), at="left")
        if verdict is Verdict.BREAK_UP:
            return replace(say(rank, Report(State.LEFT)), at="gone")
        return None


def say(rank: Rank, report: Report) -> Rank:
    return replace(rank, reports=(*rank.reports, report))


def put(world: World, index: int, rank: Rank) -> World:
    return replace(world, ranks=(*world.ranks[:index], rank, *world.ranks[index + 1 :]))


def spread(world: World, council: Council) -> World:
    """Each order that follows is told to all."""
    following = council.advance()
    if following.order == council.order:
        return replace(world, council=council)
    ranks = tuple(
        rank if rank.at in ("dead", "left", "gone") else replace(rank, orders=(*rank.orders, following.order))
        for rank in world.ranks
    )
    return spread(World(following, ranks, world.warnings, world.kills), following)


def explore(game: Game) -> list[World]:
    """Every state that can be reached; those in which nobody can move. Each state is looked at on the way."""
    first = game.start()
    seen, todo, ends = {first}, [first], []
    while todo:
        world = todo.pop()
        check(world)
        moved = False
        for following in game.moves(world):
            moved = True
            if following not in seen:
                seen.add(following)
                todo.append(following)
        if not moved:
            ends.append(world)
    print(f"{game}: {len(seen)} states, {len(ends)} ends")
    return ends


def check(world: World) -> None:
    """Nobody is in a step, or behind it, that another has left the training before."""
    stopped = {rank.completed for rank in world.ranks if rank.at == "left" and rank.seat.order.signum}
    for step in stopped:
        for rank in world.ranks:
            assert rank.at in ("left", "held", "dead", "gone"), world
            assert rank.completed == step, world
    order = world.council.order
    if order.phase in (Phase.GO, Phase.OPEN, Phase.WRITE, Phase.COMMIT):
        for rank in world.ranks:
            begun = rank.completed + (rank.at == "step")
            assert begun <= order.step, world


def ends_of(world: World) -> tuple[set[str], set[int]]:
    living = [rank for rank in world.ranks if rank.at != "dead"]
    return {rank.at for rank in living}, {rank.completed for rank in living}


def check_stop(ends: list[World]) -> None:
    for world in ends:
        ways, steps = ends_of(world)
        assert ways in ({"left"}, {"gone"}), world
        assert len(steps) == 1, world
        assert ways == {"left"} or steps == {0}, "at once only before the first step"


@pytest.mark.parametrize("lockstep", [True, False])
@pytest.mark.parametrize("save_at", [0, 1])
def test_a_warning_to_any_rank_at_any_moment_stops_both_at_the_same_step(lockstep: bool, save_at: int) -> None:
    ends = explore(Game(2, 2, warnings=1, lockstep=lockstep, save_at=save_at))
    check_stop(ends)
    assert {world.ranks[0].completed for world in ends} == {0, 1, 2}


def test_a_loop_that_does_not_tell_its_end_is_never_torn() -> None:
    """Where the warning meets the very end of such a loop, all leave without a save rather than some with one."""
    for world in explore(Game(2, 2, warnings=1, counted=False, lockstep=False)):
        ways, steps = ends_of(world)
        assert ways in ({"left"}, {"gone"}), world
        assert ways == {"gone"} or len(steps) == 1, world


def test_three_ranks_and_two_warnings() -> None:
    check_stop(explore(Game(3, 1, warnings=1)))
    check_stop(explore(Game(2, 2, warnings=2, save_at=1)))


def test_three_ranks_out_of_step_with_each_other() -> None:
    check_stop(explore(Game(3, 1, warnings=1, lockstep=False)))


def test_without_a_warning_all_come_to_the_end() -> None:
    for game in (Game(2, 3, save_at=2), Game(3, 2, save_at=1), Game(2, 3, save_at=2, lockstep=False)):
        assert all(ends_of(world) == ({"left"}, {game.steps}) for world in explore(game))


@pytest.mark.parametrize("fails", [Verdict.OPEN, Verdict.WRITE, Verdict.COMMIT])
def test_a_save_that_fails_on_any_rank_keeps_nobody(fails: str) -> None:
    ends = explore(Game(2, 2, warnings=1, save_at=1, fails=fails))
    check_stop(ends)


@pytest.mark.parametrize("lockstep", [True, False])
def test_a_rank_that_is_killed_at_any_moment_keeps_nobody(lockstep: bool) -> None:
    """In the middle of the agreement, of the save, of the publish: whoever is left, leaves."""
    for world in explore(Game(2, 2, warnings=1, kills=1, save_at=1, lockstep=lockstep)):
        ways, _ = ends_of(world)
        assert ways <= {"left", "gone"}, world


def test_the_model_sees_a_rule_that_forgets_the_step_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping at the highest boundary that was passed tears the ranks apart; else nothing above would prove much."""
    monkeypatch.setattr(Report, "begun", property(lambda report: report.step))
    with pytest.raises(AssertionError):
        check_stop(explore(Game(2, 2, warnings=1, lockstep=False)))


def test_the_model_sees_a_freeze_that_is_set_after_the_step_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The race of every such agreement: a rank answers, and then begins one more."""

    def late(self: Game, rank: Rank) -> Rank:
        heard = agent(self, replace(rank, pinned=True))
        return heard if heard.seat.order.phase is not Phase.FREEZE else replace(heard, pinned=False)

    agent = Game.agent
    monkeypatch.setattr(Game, "agent", late)
    with pytest.raises(AssertionError):
        check_stop(explore(Game(2, 2, warnings=1, lockstep=False)))


def training(size: int = 3, echo: int = 0) -> Council:
    """All ranks are in a step."""
    council = Council.of(size, echo)
    for rank in range(size):
        council = council.hear(rank, Report(State.READY)).advance()
    assert council.order.phase is Phase.RUN
    return council


def verdict_of(council: Council) -> tuple[Phase, int, int]:
    order = council.advance().order
    return order.phase, order.code, order.signum


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_warning_and_the_loss_of_a_rank_are_a_stop_in_either_order(gone: int) -> None:
    """A preemption kills one rank and warns another, and the news of the death is the faster one."""
    council = training()
    assert verdict_of(council.warn(USR1).advance().lose(gone, "gone")) == (Phase.LEAVE, 0, USR1)
    lost = council.lose(gone, "gone").advance()
    assert lost.order == council.order, "nothing is decided yet"
    assert lost.patience == BLAME
    assert verdict_of(lost.warn(USR1)) == (Phase.LEAVE, 0, USR1)
    assert verdict_of(lost.lose_patience()) == (Phase.LEAVE, 1, 0), "and without a warning it is a crash"


def test_others_that_fail_for_the_loss_of_a_rank_do_not_make_a_crash_of_it() -> None:
    """A collective fails on the living before anybody has heard of the warning; or before the loss is seen."""
    failed = Report(State.FAILED, failure="ConnectionError", code=1)
    lost_first = training().lose(1, "gone").advance().hear(2, failed).advance()
    failed_first = training().hear(2, failed).advance().lose(1, "gone").advance()
    for council in (lost_first, failed_first):
        assert council.order.phase is Phase.RUN
        assert verdict_of(council.warn(USR1)) == (Phase.LEAVE, 0, USR1)
        crashed = council.lose_patience().advance().order
        assert (crashed.code, crashed.failure) == (1, "gone"), "the one that died is to blame"


def test_a_lost_rank_holds_up_every_round_but_the_publishing() -> None:
    council = replace(training(), order=Order(Phase.WRITE, 1, 4, place="here"))
    written = Report(State.WRITTEN, 1, 4)
    lost = council.hear(0, written).hear(1, written).hear(2, written).lose(2, "gone").advance()
    assert lost.order == council.order
    publishing = replace(lost, order=Order(Phase.COMMIT, 1, 4)).advance()
    assert publishing.patience is None
    saved = publishing.hear(0, Report(State.PUBLISHED, 1, 4)).advance()
    assert (saved.order.phase, saved.patience) == (Phase.SAVED, BLAME)
    assert verdict_of(saved.lose_patience()) == (Phase.LEAVE, 1, 0)


def test_an_agent_that_ends_the_rest_for_the_death_of_one_has_not_warned_them() -> None:
    """torchrun sends TERM to the workers that are left: an out-of-memory kill would be requeued as a stop."""
    lost = training(echo=15).lose(1, "gone").advance().warn(15)
    assert lost.warned == 0
    assert verdict_of(lost.lose_patience()) == (Phase.LEAVE, 1, 0)
    assert verdict_of(lost.warn(USR1)) == (Phase.LEAVE, 0, USR1)
    assert training(echo=15).warn(15).warned == 15, "before any death it is a warning"


@pytest.mark.parametrize(("failure", "phase"), [("", Phase.COMMIT), ("no space", Phase.SAVED)])
def test_nothing_is_published_before_every_rank_has_written_its_part(failure: str, phase: Phase) -> None:
    council = Council(3, Order(Phase.WRITE, round=1, step=5, place="p"), (Report(State.HELD, 1, 5),) * 3)
    for rank in (0, 2):
        council = council.hear(rank, Report(State.WRITTEN, 1, 5)).advance()
        assert council.order.phase is Phase.WRITE
    last = council.hear(1, Report(State.WRITTEN, 1, 5, failure=failure)).advance()
    assert (last.order.phase, last.order.failure) == (phase, failure)
