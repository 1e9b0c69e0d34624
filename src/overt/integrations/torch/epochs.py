"""From what happens in a loop (passes, losses, steps) to one set of numbers for each epoch.

A state machine that knows no framework: a loss is any value that can be read later. Unless it is told where an
epoch begins, one is what a training loop makes of it: a new one begins with the first training loss after the loader
that leads (the one called after training, else the longest) was started again; without loaders, with the first one
after an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

MOST_WAITING = 10_000
"""Losses that wait at most to be read: a transfer of as many takes milliseconds."""
MOST_STEPS = 64
LONGEST_S = 0.25
"""How many steps, and how long, wait to be told together: between two steps of a network nothing of ours is in the
caches, and telling each of them there takes three times as long."""

Read = Callable[[Sequence[Any]], Sequence[float]]


@dataclass(slots=True, eq=False)
class Pass:
    """One iteration over a loader.

    Attributes
    ----------
    loader : str
        What the loader is called.
    rows : int
        Samples in its last batch.
    begun_at, drawn_at : int
        How many batches all loaders had given when it began, and with its last one.
    identity : object
        Which loader it is, under whatever name; None where that is not known.
    is_whole : bool
        Whether it has come to the loader's end.
    """

    loader: str
    began: float
    length: int = 0
    identity: object = None
    batches: int = 0
    samples: int = 0
    rows: int = 0
    begun_at: int = 0
    drawn_at: int = 0
    has_trained: bool = False
    is_over: bool = False
    is_whole: bool = False


@dataclass(slots=True, eq=False)
class Loss:
    """One value of a loss.

    Attributes
    ----------
    value : object
        Read later.
    samples : int
        How many it is of.
    is_sum : bool
        Whether it is their sum and not their mean.
    went_back : bool
        Whether ``backward`` went through it, where that is looked at.
    is_doubtful : bool
        Whether it is one of a training only if ``backward`` goes through it.
    is_further : bool
        Whether it is one of an evaluation that has losses of all samples of the batch already.
    """

    source: str
    value: Any
    samples: int
    is_sum: bool = False
    went_back: bool = False
    is_doubtful: bool = False
    is_further: bool = False
    batch: int | None = None
    step: int | None = None

    @property
    def place(self) -> str:
        """Where in its epoch it was computed, as far as that is known."""
        batch = "" if self.batch is None else f", batch {self.batch}"
        return batch + ("" if self.step is None else f", step {self.step}")


@dataclass(slots=True)
class Mean:
    """Mean over samples, in double precision and in the order of the losses, as a loop's own log would add them up."""

    total: float = 0.0
    samples: int = 0
    waiting: list[Loss] = field(default_factory=list)
    not_finite: tuple[Loss, float] | None = None

    def take(self, values: Iterable[float]) -> None:
        """Add the values of those that were waiting."""
        for loss, value in zip(self.waiting, values, strict=True):
            if self.not_finite is None and not isfinite(value):
                self.not_finite = loss, value
            self.total += value if loss.is_sum else value * loss.samples
            self.samples += loss.samples
        self.waiting.clear()


class Step(NamedTuple):  # made in a quarter of a frozen dataclass's time
    """One step of an optimizer.

    Attributes
    ----------
    number : int
        Of this optimizer's steps, from 0.
    losses : mapping
        Name of the series to the losses that went into the step.
    """

    optimizer: str
    number: int
    losses: Mapping[str, Sequence[Loss]]


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is known of one epoch, or of evaluations after it.

    Attributes
    ----------
    evaluated : sequence of str
        Names of the sets that were evaluated.
    not_finite : tuple of (Loss, float) or None
        The first loss in it that was NaN or infinite.
    """

    index: int
    metrics: Mapping[str, Any]
    evaluated: Sequence[str] = ()
    not_finite: tuple[Loss, float] | None = None


@dataclass(slots=True)
class Earlier:
    """An evaluation that another one of its set has followed within the epoch.

    Attributes
    ----------
    name : str
        Of the set.
    step : int
        Number of the last step before it.
    means : mapping
        Losses by series.
    right : sequence
        Counts of right answers, for whoever keeps them.
    is_replaced : bool
        Whether no step came between the two, so that the later one stands for both.
    """

    name: str
    step: int
    means: Mapping[str, Mean]
    right: Sequence[Any] = ()
    is_replaced: bool = False


@dataclass(slots=True)
class Names:
    """Gives each series the plainest name that is free, and keeps to it.

    ``train_loss`` is the loss of the only source there is; where several come together each says which it is.
    """

    given: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, base: str, sources: Iterable[str]) -> dict[str, str]:
        """Name of each source's series, all of which begin with ``base``."""
        sources = tuple(sources)
        if len(sources) == 1 and (known := self.given.get((base, sources[0]))) is not None:
            return {sources[0]: known}
        is_first = not any(known == base for known, _ in self.given)
        for source in sources:
            if (base, source) not in self.given:
                is_plain = is_first and len(sources) == 1
                self.given[base, source] = base if is_plain or not source else f"{base}_{source}"
        return {source: self.given[base, source] for source in sources}


@dataclass(slots=True)
class _Open:
    """The epoch that is going on."""

    began: float
    trained_until: float
    begun_at: int
    lead: Pass | None = None
    passes: list[Pass] = field(default_factory=list)
    means: dict[str, Mean] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    has_evaluated: bool = False


@dataclass(slots=True)
class _Evaluation:
    """The last evaluation of one set."""

    a_pass: Pass | None
    step: int
    means: dict[str, Mean] = field(default_factory=dict)
    batch: int = 0
    samples: int = 0

    def take(self, loss: Loss) -> None:
        """See whether the batch that a loss is of has been gone through before."""
        if self.a_pass is None:
            return
        if self.batch != self.a_pass.batches:
            self.batch, self.samples = self.a_pass.batches, 0
        loss.is_further = 0 < self.a_pass.rows <= self.samples
        self.samples += loss.samples


class Epochs:
    """Follows one training.

    Parameters
    ----------
    read : callable
        Reads the values of losses, together.
    on_epoch, on_steps : callable
        Are given each epoch as it ends, and each step, some of them together.
    now : callable
        Seconds.

    Attributes
    ----------
    earlier : list of Earlier
        Evaluations that wait to be read, since the epoch has later ones.
    is_settled : bool
        Whether nothing has begun since the last training: no pass, no evaluation, no epoch.
    n_left_out : int
        Doubtful losses that ``backward`` never went through: of no training, and of no evaluation either.
    """

    def __init__(
        self,
        read: Read,
        on_epoch: Callable[[Epoch], None],
        on_steps: Callable[[Sequence[Step]], None],
        now: Callable[[], float],
    ) -> None:
        self.index = -1
        self.n_epochs = 0
        self.optimizers: list[str] = []
        self.awaits_optimizer = False
        self.is_told = False
        self.n_left_out = 0
        self.is_settled = False
        self.earlier: list[Earlier] = []
        self._read, self._on_epoch, self._on_steps, self._now = read, on_epoch, on_steps, now
        self._open: _Open | None = None
        self._passes: list[Pass] = []
        self._evaluations: dict[str, _Evaluation] = {}
        self._sets: dict[tuple[str, bool, int], str] = {}
        self._trained_on: set[object] = set()
        self._evaluated: dict[tuple[str, bool], list[object]] = {}
        self._pending: list[Loss] = []
        self._untold: list[Loss | None] = []
        self._untold_since = 0.0
        self._names = Names()
        self._counts: dict[str, int] = {}
        self._is_fresh = True
        self._given: int | None = None
        self._last_event = now()
        self._n_drawn = 0
        self._n_trained = 0

    # -- what happens --------------------------------------------------------------------------------------------------

    def begin(self, epoch: int | None = None) -> None:
        """Have the next training begin an epoch, with the number ``epoch`` if that is known."""
        self.tell_steps()
        self._is_fresh, self._given, self._last_event = True, epoch, self._now()
        self.is_settled = False

    def begin_pass(self, loader: str, length: int = 0, identity: object = None) -> Pass:
        """A loader of ``length`` batches is started; another pass over it that still hangs around has been left."""
        for other in self._passes:
            if other.loader == loader:
                self._forget_look(other)
                other.is_over = True
        self._passes = [other for other in self._passes if not other.is_over]
        self.is_settled = False
        begun = Pass(loader, self._now(), length, identity, begun_at=self._n_drawn)
        self._passes.append(begun)
        return begun

    def draw(self, drawn_in: Pass, samples: int = 0) -> None:
        """A loader has given a batch, maybe in a pass that seemed to have been left."""
        self._n_drawn += 1
        drawn_in.drawn_at = self._n_drawn
        drawn_in.batches += 1
        drawn_in.rows = samples
        drawn_in.samples += samples
        if not drawn_in.has_trained:
            self.is_settled = False
            if drawn_in.is_over:
                drawn_in.is_over = False
                self._passes.append(drawn_in)

    def end_pass(self, ended: Pass) -> None:
        """A loader is exhausted, or its iterator was dropped."""
        if not ended.is_over:
            ended.is_over = True
            self._passes = [other for other in self._passes if other is not ended]
            if self._open is not None and ended.has_trained:
                self._open.trained_until = self._now()

    def train(self, loss: Loss) -> None:
        """A loss was computed to be minimised. Where there is no optimizer each one is a step."""
        self._trains()
        self._pending.append(loss)
        if not self.optimizers and not self.awaits_optimizer:
            self._on_steps([self._take("", self._pending)])
        elif len(self._pending) >= MOST_WAITING:
            self._take_what_waits(is_only=True)

    def train_on(self, source: str, value: Any, samples: int, *, is_sum: bool) -> None:
        """Train while all is settled: the same as :meth:`train`, for an only optimizer and a loss beyond doubt."""
        newest = self._passes[-1] if self._passes else None
        batch = newest.batches - 1 if newest is not None and newest.batches else None
        self._pending.append(Loss(source, value, samples, is_sum, batch=batch))
        if len(self._pending) >= MOST_WAITING:
            self._take_what_waits(is_only=True)

    def step_on(self) -> bool:
        """Step while all is settled, after one loss and one beyond doubt; False if it is not so."""
        if not self.is_settled or len(self._pending) != 1 or self._pending[0].is_doubtful:
            return False
        self._last_event = self._now()
        self._let_wait(self._pending.pop())
        return True

    def step(self, optimizer: str) -> None:
        """An optimizer has stepped: with several, it takes the losses that ``backward`` has gone through."""
        self._trains()
        is_only = len(self.optimizers) == 1
        if is_only and len(self._pending) <= 1 and not (self._pending and self._pending[0].is_doubtful):
            self._let_wait(self._pending.pop() if self._pending else None)
        else:
            self._on_steps([self._take(optimizer, self._trained(is_only=is_only))])

    def _let_wait(self, loss: Loss | None) -> None:
        """A step of an only optimizer, after this loss at most, is told in a while with others."""
        untold = self._untold
        untold.append(loss)
        if len(untold) == 1:
            self._untold_since = self._last_event
        elif len(untold) >= MOST_STEPS or self._last_event - self._untold_since > LONGEST_S:
            self.tell_steps()

    def tell_steps(self) -> None:
        """Count and tell the steps that wait for it: those of an only optimizer, after one loss each at most."""
        going, untold = self._open, self._untold
        if going is None or not untold:
            return
        self._untold, steps = [], []
        going.trained_until = max(going.trained_until, self._last_event)
        optimizer = self.optimizers[0]
        first = self._counts.get(optimizer, 0)
        self._counts[optimizer] = first + len(untold)
        going.steps[optimizer] = going.steps.get(optimizer, 0) + len(untold)
        for number, loss in enumerate(untold, first):
            losses = {}
            if loss is not None:
                series = self._names.of("train_loss", (loss.source,))[loss.source]
                loss.step = number
                self._hold(going.means.setdefault(series, Mean()), loss)
                losses[series] = (loss,)
            steps.append(Step(optimizer, number, losses))
        self._on_steps(steps)

    def evaluate(self, loss: Loss, *, is_elsewhere: bool = False) -> tuple[str, bool]:
        """A loss was computed for its value alone; the name of its set, and whether a new evaluation of it begins.

        It is of the loader that has given the last batch, unless it ``is_elsewhere``: of data from no loader.
        """
        a_pass = None if is_elsewhere else self.drawn
        name = self._set_name(a_pass)
        found = self._evaluations.get(name)
        is_new = found is None or found.a_pass is not a_pass or (a_pass is None and not self._was_evaluating())
        if is_new:
            step = max(map(self.count_of, self.optimizers), default=0) - 1
            if found is not None:
                means = {series: found.means[source] for source, series in self._series_of(name, found).items()}
                self.earlier.append(Earlier(name, found.step, means, is_replaced=found.step == step))
            self._evaluations[name] = found = _Evaluation(a_pass, step)
        assert found is not None
        found.take(loss)
        self._hold(found.means.setdefault(loss.source, Mean()), loss)
        self.is_settled = False
        if self._open is not None:
            self._open.has_evaluated = True
        return name, is_new

    def unfinished_evaluations(self) -> list[str]:
        """Names of the sets whose evaluation has not come to the end of its loader, where it has one."""
        evaluations = self._evaluations.items()
        return [name for name, found in evaluations if found.a_pass is not None and not found.a_pass.is_whole]

    def close(self, index: int | None = None) -> None:
        """Tell what is known of the epoch that is going on, and of evaluations since the last was told.

        Parameters
        ----------
        index : int, optional
            The number of the epoch, where whoever ends it knows.
        """
        self.tell_steps()
        for a_pass in self._passes:
            self._forget_look(a_pass)
        if self._open is not None and self._pending:
            self._take_what_waits(is_only=len(self.optimizers) <= 1)
        ended, self._open, self._pending, self.is_settled = self._open, None, [], False
        if ended is None and not self._evaluations:
            return
        if ended is None and self._given is not None:
            self.index, self._given = self._given, None
        if index is not None:
            self.index = index
        told = self._told(ended)
        self._evaluations = {}
        self._is_fresh = True
        if ended is not None:
            self._trained_on.update(a_pass.identity for a_pass in ended.passes)
        self._on_epoch(told)

    def abandon(self) -> None:
        """Tell nothing of the epoch that is going on but its steps: it will be gone through again."""
        self.tell_steps()
        self._open, self._pending, self._evaluations, self.is_settled = None, [], {}, False
        self._is_fresh = True

    # -- what is known -------------------------------------------------------------------------------------------------

    @property
    def batch(self) -> int | None:
        """Number of the batch that was last drawn from the loader that was last started; None without one."""
        return self._passes[-1].batches - 1 if self._passes and self._passes[-1].batches else None

    @property
    def drawn(self) -> Pass | None:
        """The pass that has given the last batch, of those that go on."""
        return max(reversed(self._passes), key=lambda a_pass: a_pass.drawn_at, default=None)

    def is_undecided(self, drawn: Pass) -> bool:
        """Whether this first batch of a pass may yet turn out to be one of a training."""
        return drawn.batches == 1 and not any(a_pass.has_trained for a_pass in self._passes)

    def read_means(self, means: Mapping[str, Mean]) -> dict[str, Any]:
        """The values of these means, with one transfer for all that waits in them."""
        values = iter(self._read([loss.value for mean in means.values() for loss in mean.waiting]))
        metrics: dict[str, Any] = {}
        for name, mean in means.items():
            mean.take([next(values) for _ in mean.waiting])
            if mean.samples:
                metrics[name] = mean.total / mean.samples
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """The last epoch, and the steps of each optimizer so far."""
        self.tell_steps()
        return {"index": self.index, "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from there."""
        self.index = state["index"]
        self._counts = dict(state["counts"])

    def count_of(self, optimizer: str) -> int:
        """Steps of an optimizer so far."""
        untold = len(self._untold) if optimizer in self.optimizers[:1] else 0
        return self._counts.get(optimizer, 0) + untold

    # -- inside --------------------------------------------------------------------------------------------------------

    def _trains(self) -> None:
        """Training goes on: find out whether in a new epoch."""
        now = self._now()
        going = self._open
        if self.is_settled and going is not None:
            going.trained_until = self._last_event = now
            return
        drawn = [a_pass for a_pass in self._passes if a_pass.has_trained or a_pass.drawn_at > self._n_trained]
        if going is None or self._begins_anew(going, drawn):
            latest = max((a_pass.begun_at for a_pass in drawn), default=0)
            since = min(
                (a_pass.began for a_pass in drawn if not a_pass.has_trained and a_pass.drawn_at > latest),
                default=self._last_event,
            )
            given, self._given = self._given, None
            self.close()  # evaluations before the first training too
            self.index = given if given is not None else self.index + 1
            self.n_epochs += 1
            self._is_fresh = False
            going = self._open = _Open(since, now, self._n_drawn)
        for a_pass in drawn:
            if a_pass not in going.passes and (not going.has_evaluated or a_pass.has_trained or going.lead is None):
                a_pass.has_trained = True
                going.passes.append(a_pass)
                going.lead = max((going.lead or a_pass, a_pass), key=_leads)
        going.has_evaluated = False
        self._n_trained = self._n_drawn
        self._evaluated = {}
        going.trained_until = self._last_event = now
        self.is_settled = True

    def _begins_anew(self, going: _Open, drawn: Sequence[Pass]) -> bool:
        if self._is_fresh or self.is_told:
            return self._is_fresh
        if going.lead is None:
            return going.has_evaluated
        known = {a_pass.loader for a_pass in going.passes}
        return any(
            a_pass not in going.passes
            and a_pass.loader in known
            and (a_pass.loader == going.lead.loader or going.lead.is_over)
            for a_pass in drawn
        )

    def _forget_look(self, a_pass: Pass) -> None:
        """A batch was looked at before the training, with an iterator that hangs around: that was no training.

        It has given none any more since another loader was begun, and none since the training itself began.
        """
        going = self._open
        if going is None or a_pass not in going.passes or a_pass.drawn_at > going.begun_at:
            return
        if any(other.begun_at >= a_pass.drawn_at for other in going.passes):
            a_pass.has_trained = False
            going.passes = [other for other in going.passes if other is not a_pass]
            going.lead = max(going.passes, key=_leads)

    def _was_evaluating(self) -> bool:
        return self._open is None or self._open.has_evaluated

    def _take_what_waits(self, *, is_only: bool) -> None:
        self._take_rest(self._trained(is_only=is_only))
        self.n_left_out += sum(loss.is_doubtful for loss in self._pending)
        self._pending = [loss for loss in self._pending if not loss.is_doubtful]

    def _take_rest(self, losses: list[Loss]) -> None:
        """Losses that no step came after count for the epoch; where none ever came each of them was one."""
        assert self._open is not None
        if self.optimizers:
            last = list(self._open.steps)[-1] if self._open.steps else self.optimizers[0]
            self._take(last, losses, is_step=False)
            return
        self.awaits_optimizer = False
        for loss in list(losses):
            self._on_steps([self._take("", [loss])])

    def _take(self, optimizer: str, losses: list[Loss], *, is_step: bool = True) -> Step:
        self.tell_steps()
        going = self._open
        assert going is not None
        by_source: dict[str, list[Loss]] = {}
        for loss in losses:
            by_source.setdefault(loss.source, []).append(loss)
        base = f"train_loss_{optimizer}" if len(self.optimizers) > 1 else "train_loss"
        names = self._names.of(base, by_source)
        for source, taken in by_source.items():
            for loss in taken:
                self._hold(going.means.setdefault(names[source], Mean()), loss)
        number = self._counts.get(optimizer, 0)
        for loss in losses if is_step else ():
            loss.step = number
        if len(losses) == len(self._pending):
            self._pending = []
        else:
            taken_ids = {id(loss) for loss in losses}
            self._pending = [loss for loss in self._pending if id(loss) not in taken_ids]
        if is_step:
            self._counts[optimizer] = number + 1
            going.steps[optimizer] = going.steps.pop(optimizer, 0) + 1
        return Step(optimizer, number, {names[source]: taken for source, taken in by_source.items()})

    def _hold(self, mean: Mean, loss: Loss) -> None:
        mean.waiting.append(loss)
        if len(mean.waiting) >= MOST_WAITING:
            mean.take(self._read([waiting.value for waiting in mean.waiting]))

    def _trained(self, *, is_only: bool) -> list[Loss]:
        """The losses that wait for a step of training."""
        return [loss for loss in self._pending if loss.went_back or (is_only and not loss.is_doubtful)]

    def _set_name(self, a_pass: Pass | None) -> str:
        """What the set of a loader is called: the first is ``val``, whatever its loader is called.

        That of a loader that was trained on is ``training``. Several that come one after the other under one name, as
        in calls of ``test(model, loader)``, are told apart.
        """
        loader, identity = (a_pass.loader, a_pass.identity) if a_pass is not None else ("", None)
        is_training = "train" in loader.lower() or (a_pass is not None and self._is_trained_on(a_pass))
        alike = self._evaluated.setdefault((loader, is_training), [])
        if identity not in alike:
            alike.append(identity)
        key = loader, is_training, alike.index(identity)
        if key not in self._sets:
            self._sets[key] = self._new_set_name(*key)
        return self._sets[key]

    def _is_trained_on(self, a_pass: Pass) -> bool:
        if a_pass.has_trained or a_pass.identity is None:
            return a_pass.has_trained
        here = self._open.passes if self._open is not None else ()
        return a_pass.identity in self._trained_on or any(other.identity == a_pass.identity for other in here)

    def _new_set_name(self, loader: str, is_training: bool, position: int) -> str:
        others = self._sets.values()
        if position:
            return f"{self._sets[loader, is_training, 0]}_{position + 1}"
        if is_training:
            return "training" if "training" not in others else f"training_{loader}"
        if not any(not name.startswith("training") for name in others):
            return "val"
        if "test" in loader.lower() and "test" not in others:
            return "test"
        return f"val_{loader}" if loader else "val_without_loader"

    def _told(self, ended: _Open | None) -> Epoch:
        means: dict[str, Mean] = dict(ended.means) if ended is not None else {}
        for name, evaluation in self._evaluations.items():
            for source, series in self._series_of(name, evaluation).items():
                means[series] = evaluation.means[source]
        metrics = self.read_means(means)
        if ended is not None:
            metrics |= self._told_of_speed(ended)
        bad = [mean.not_finite for mean in means.values() if mean.not_finite is not None]
        return Epoch(self.index, metrics, tuple(self._evaluations), bad[0] if bad else None)

    def _series_of(self, name: str, evaluation: _Evaluation) -> dict[str, str]:
        return self._names.of(f"{name}_loss", evaluation.means)

    def _told_of_speed(self, ended: _Open) -> dict[str, Any]:
        newer = [a_pass.began for a_pass in self._passes if a_pass.began > ended.trained_until]
        until = min(newer, default=self._now())
        samples = sum(a_pass.samples for a_pass in ended.passes)
        samples = samples or max((mean.samples for mean in ended.means.values()), default=0)
        told: dict[str, Any] = {"epoch_seconds": until - ended.began}
        for optimizer, count in ended.steps.items():
            told["n_steps" if len(self.optimizers) <= 1 else f"n_steps_{optimizer}"] = count
        seconds = ended.trained_until - ended.began
        if samples and seconds > 0:
            told["samples_per_second"] = samples / seconds
        return told


def _leads(a_pass: Pass) -> tuple[bool, int]:
    """Of loaders side by side the one called after training makes the epochs, else the longest: others are repeated."""
    return "train" in a_pass.loader.lower(), a_pass.length
