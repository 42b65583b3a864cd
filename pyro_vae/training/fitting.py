"""Training of a VAE for some epochs: `fit`."""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pyro_vae.data.batch import Batch
from pyro_vae.data.batches import count_of, indices_of
from pyro_vae.data.rows import Data, Rows
from pyro_vae.evaluation.measures import mean_elbo_terms, negative_elbo_by_row
from pyro_vae.evaluation.vae_rows import VAERows, rows_for
from pyro_vae.inference.soundness import UnsoundStepError
from pyro_vae.inference.surrogates import checked_loss
from pyro_vae.inference.svi import SVI
from pyro_vae.objectives import RowELBO, scheduled_by
from pyro_vae.objectives.schedules import checked_number, first_number
from pyro_vae.support.arguments import arguments_checked
from pyro_vae.support.checks import one_line
from pyro_vae.support.invalid_parameters import InvalidParameterError
from pyro_vae.support.methods_of_users import called
from pyro_vae.support.modules import evaluating, modes_restored, state_difference, tensor_like
from pyro_vae.support.progress import progress_bar, tqdm
from pyro_vae.support.store import store_as_found
from pyro_vae.support.streams import stream
from pyro_vae.support.validation import validating
from pyro_vae.training.early_warnings import warnings_for
from pyro_vae.training.factories import cut_short, made_optimizer, made_scheduler, rehearse
from pyro_vae.training.history import Epoch, Fit, best_epoch
from pyro_vae.training.per_row import PerRow
from pyro_vae.training.resuming import asked_for, changes, go_on, step_scheduler
from pyro_vae.training.settings import Change, Training
from pyro_vae.vae import VAE

# Steps between two reads of losses from the device; a read waits for all work in progress.
_READ_EVERY = 50
# A row with a −ELBO of so many medians is the cause of a loss that overflows.
_ODD = 1e6


class NonFiniteLossError(ValueError):
    """Raised if the loss becomes NaN or infinite; the VAE gets the weights of the epoch before."""


@arguments_checked
def fit(
    vae: VAE,
    data: Data,
    training: Training | None = None,
    *,
    validation: Data | None = None,
    test: Data | None = None,
    resume: Fit | None = None,
    on_epoch: Callable[[Fit], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    progress: bool = False,
) -> Fit:
    """Train a VAE in place.

    At the end the VAE has the weights of the epoch with the best validation ELBO, or without
    validation rows those of the last epoch. The result holds both. After Ctrl-C, `fit` returns the
    state at the end of the last whole epoch, and the VAE has the best or last weights until then.
    After an error it has the weights of the end of the last whole epoch.

    The same seed gives the same losses, and a resumed run has the losses of an uninterrupted one.
    The caller's random state, Pyro's param store and its validation flags stay as they are.

    Arguments:
        vae: the VAE; it is trained on the device of its parameters.
        data: the rows to train on, `(N, *x_shape)`; for a conditional VAE a pair (x, y), or rows
            with labels.
        training: how to train; `Training()` by default.
        validation: rows for early stopping and for the choice of the best weights.
        test: rows whose −ELBO is added to the history, and has no other effect.
        resume: the result of an earlier `fit` to continue from; it is not changed. With the same
            `training`, the run continues as if it had never stopped. The optimiser's settings, the
            scheduler, the KL schedule, the clipping and the patience may change from the next epoch
            on, and `Fit.changes` lists the changes. A learning rate is the one at the start of
            the schedule: if it is changed from 1e-3 to 5e-4, a rate that has decayed to 2e-4
            becomes 1e-4. A scheduler that is new or has other settings starts at the next epoch,
            at the new learning rate.
        on_epoch: called before the first and after each epoch, with the VAE in evaluation mode,
            for instance to save a checkpoint, or `logged`. If it has a method `close`, that is
            called when training ends, also by an error or Ctrl-C.
        on_step: called after each step with the number of steps since training began, for instance
            `Snapshots`.
        progress: show a progress bar.

    Raises:
        ValueError: if the data or settings are unusable, before training starts; or if a resumed
            run has another class of optimiser, another objective, other batches or another seed.
        NonFiniteLossError: if the loss becomes NaN or infinite.
    """
    run = _Run(
        rows_for(vae, data),
        training or Training(),
        validation=None if validation is None else rows_for(vae, validation, "validation"),
        test=None if test is None else rows_for(vae, test, "test"),
        resume=resume,
    )
    run.on_step = on_step

    def report() -> None:
        if on_epoch is not None:
            with evaluating(vae):  # no draw of `on_epoch` may change running statistics
                on_epoch(run.reached.copy())

    try:
        with _closed(on_epoch), modes_restored(vae), run.progress_bar(progress) as bar:
            # A VAE in training mode may have modules that the caller keeps in evaluation mode.
            if not vae.training:
                vae.train()
            report()
            while run.goes_on():
                run.epoch(bar)
                report()
    except Exception:
        run.put_back()
        raise
    except KeyboardInterrupt:
        return run.ended("interrupted")
    return run.ended("finished" if run.is_complete() else "stopped early")


class _Run:
    """One call of `fit`: the parts that its epochs share, and the state that they have reached."""

    def __init__(
        self,
        train: VAERows,
        training: Training,
        validation: VAERows | None,
        test: VAERows | None,
        resume: Fit | None,
    ) -> None:
        vae = train.vae
        self.like = tensor_like(vae)
        self.vae = vae
        self.training = training
        self.train = train.placed(_placed(train.rows, self.like.device))
        self.validation = validation
        self.test = test
        self.num_batches = count_of(training.batches, "num_batches", len(train))
        self.num_dealt = count_of(training.batches, "num_dealt", len(train))
        self._check()
        parameters = [parameter for parameter in vae.parameters() if parameter.requires_grad]
        self.optimizer = made_optimizer(training.optimizer, parameters)
        num_left = training.epochs - (0 if resume is None else len(resume.history))
        rehearse(training.scheduler, self.optimizer, num_left)
        self.asked = asked_for(training, self.optimizer)
        self.scheduler = made_scheduler(training.scheduler, self.optimizer)
        self.scheduled_value = 1.0
        self.scheduled_tensor = self.like.new_tensor(1.0)
        self.svi = self._svi()
        self._advise()
        self.changes: tuple[Change, ...] = ()
        self.reached = self._snapshot([], None) if resume is None else self._resumed(resume)
        self.on_step: Callable[[int], None] | None = None
        self.is_validated = False

    def _svi(self) -> SVI:
        training = self.training
        return SVI(
            self.vae.model,
            self.vae.guide,
            self.optimizer,
            PerRow(training.objective, self._maker_of_x()),
            execution=training.execution,
            num_steps=training.epochs * self.num_batches,
        )

    def _maker_of_x(self) -> Callable[[Tensor], Tensor]:
        """Return a function that sees the rows alone: what changes asks for a new trace."""
        rows = self.train.rows
        dtype = self.like.dtype
        return lambda levels: rows.training_x(levels, dtype)

    def _advise(self) -> None:
        with stream(0, device=self.like.device), evaluating(self.vae):
            batch = self.train.batch(slice(1))
            sentences = warnings_for(self.train, batch, self.training.objective)
            sentences += cut_short(self.scheduler, self.training.epochs, self.num_batches)
            self._try_objective(batch)
        for sentence in sentences:
            warnings.warn(sentence, stacklevel=5)

    @torch.no_grad()
    def _try_objective(self, batch: Batch) -> None:
        """Refuse data that an objective of this package cannot score, before a file is written."""
        objective = self.training.objective
        schedule = self.training.kl_schedule
        first = first_number(schedule)
        if isinstance(objective, RowELBO):
            value = max(first, 1e-6)
            scheduled = {scheduled_by(objective): value}
            with store_as_found():
                given = [part for part in batch if part is not None]
                programs = self.vae.model, self.vae.guide
                loss = called(objective, "differentiable_loss", *programs, *given, **scheduled)
                checked_loss(objective, loss)

    def is_complete(self) -> bool:
        """Return True if all epochs are done."""
        return len(self.reached.history) >= self.training.epochs

    def goes_on(self) -> bool:
        """Return True if epochs are left and patience has not run out."""
        history = self.reached.history
        patience = self.training.patience
        has_patience = patience is None or len(history) - best_epoch(history) < patience
        return has_patience and not self.is_complete()

    def progress_bar(self, is_shown: bool) -> tqdm:
        """Return one bar over the rows of all epochs; in a resumed run it does not start at 0."""
        total = self.num_dealt * self.training.epochs
        initial = self.num_dealt * len(self.reached.history)
        return progress_bar(total, "rows", is_shown, initial)

    def epoch(self, bar: tqdm) -> None:
        """Train for one epoch, measure the losses, and keep the state that was reached."""
        started = time.perf_counter()
        number = len(self.reached.history) + 1
        learning_rate = self.optimizer.param_groups[0]["lr"]
        with stream(self.training.seed, number, device=self.like.device), warnings.catch_warnings():
            # Pyro only warns of NaN; here NaN is an error.
            warnings.filterwarnings("ignore", message="Encountered ")
            train_loss, value = self._train(number, bar)
        validation_loss, validation_rate = self._measured("validation", self.validation, number)
        test_loss, test_rate = self._measured("test", self.test, number)
        row = Epoch(
            epoch=number,
            learning_rate=learning_rate,
            scheduled=value,
            train_loss=train_loss,
            validation_loss=validation_loss,
            test_loss=test_loss,
            seconds=time.perf_counter() - started,
            validation_rate=validation_rate,
            test_rate=test_rate,
        )
        step_scheduler(self.scheduler, row)
        self.reached = self._snapshot([*self.reached.history, row], self.reached.best_weights)

    def _train(self, number: int, bar: tqdm) -> tuple[float, float]:
        """Train on the batches of an epoch.

        Returns:
            The mean loss of the epoch's rows, and the scheduled number of its last batch.
        """
        num_batches = self.num_batches
        unread: list[Tensor] = []
        loss_sum = 0.0
        rows_seen = 0
        value = 1.0
        for step, index in enumerate(self._indices(), start=1):
            value = self.training.kl_schedule(number - 1 + (step - 1) / num_batches)
            unread.append(self._step(index, value))
            if self.on_step is not None:
                # Draws in `on_step` do not change those of training.
                with stream(self.training.seed, number, step, device=self.like.device):
                    self.on_step((number - 1) * num_batches + step)
            rows_seen += len(index)
            bar.update(len(index))
            if len(unread) == _READ_EVERY or step == num_batches:
                loss_sum += self._read(unread, number, step)
                unread.clear()
                postfix = {
                    "epoch": f"{number}/{self.training.epochs}",
                    "loss": f"{loss_sum / rows_seen:.2f}",
                }
                bar.set_postfix(postfix, refresh=False)
        return loss_sum / rows_seen, value

    def _indices(self) -> Iterable[Tensor]:
        """Return the row numbers of each batch, which move to the rows' device once an epoch."""
        indices = indices_of(self.training.batches, self.num_batches, len(self.train))
        sizes = [len(index) for index in indices]
        return torch.cat(indices).to(self.train.rows.levels.device).split(sizes)

    def _scheduled(self, value: float) -> dict[str, Tensor]:
        """Return the scheduled number as the argument of the objective.

        It is a tensor, since each value of a Python number would be traced anew.
        """
        if value != self.scheduled_value:
            self.scheduled_value = checked_number(self.training.kl_schedule, value)
            self.scheduled_tensor = self.like.new_tensor(value)
        return {scheduled_by(self.training.objective): self.scheduled_tensor}

    def _step(self, index: Tensor, value: float) -> Tensor:
        """Train on one batch, and return its loss, which stays on the device."""
        levels = self.train.rows.levels[index].to(self.like.device, non_blocking=True)
        y = () if self.train.y is None else (self.train.y[index].to(self.like),)
        scheduled = self._scheduled(value)
        self.optimizer.zero_grad()
        try:
            # Validation costs a tenth of a step or more, so only the first step is validated. It
            # also tells SVI which checks later steps need.
            with validating(not self.is_validated):
                loss = self.svi.backward(levels, *y, **scheduled)
        except UnsoundStepError as error:
            raise self._unsound(error) from None
        except InvalidParameterError as error:  # seen by the validation of the first step
            number = len(self.reached.history) + 1
            raise self._non_finite(number, "at step 1", advice=str(error)) from None
        self.is_validated = True
        if self.training.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.vae.parameters(), self.training.clip_norm)
        self.optimizer.step()
        return loss

    def _read(self, losses: list[Tensor], number: int, step: int) -> float:
        """Return the sum of losses.

        Raises:
            NonFiniteLossError: if a step was not sound, or the epoch ends with infinite weights.
        """
        try:
            self.svi.check()
        except UnsoundStepError as error:
            raise self._unsound(error) from None
        if step == self.num_batches:
            for parameter in self.vae.parameters():
                if not torch.isfinite(parameter).all():
                    raise self._non_finite(number, f"at step {step}")
        return torch.stack(losses).double().sum().item()

    def _unsound(self, error: UnsoundStepError) -> NonFiniteLossError:
        """Return the error with its epoch and its step in the epoch.

        The epoch is the present one: all steps of an epoch are read before the next one begins.
        """
        step = (error.step - 1) % self.num_batches + 1
        advice = "look at what 'data' hold there." if error.is_outside else ""
        number = len(self.reached.history) + 1
        return self._non_finite(number, f"at step {step}", error.what, advice=advice)

    def _measured(
        self, name: str, rows: VAERows | None, number: int
    ) -> tuple[float | None, float | None]:
        """Return −ELBO and rate of validation or test rows in nats per row, or None without rows.

        Raises:
            NonFiniteLossError: if −ELBO is NaN or infinite.
        """
        if rows is None:
            return None, None
        place = f"on the rows of '{name}'"
        try:
            terms = mean_elbo_terms(rows)
        except InvalidParameterError as error:
            raise self._non_finite(number, place, advice=str(error)) from None
        if not math.isfinite(terms.negative_elbo):
            raise self._non_finite(number, place, rows=rows, name=name)
        return terms.negative_elbo, terms.rate

    def _non_finite(
        self,
        number: int,
        place: str,
        what: str = "The loss became NaN or infinite",
        *,
        rows: VAERows | None = None,
        name: str = "data",
        advice: str = "",
    ) -> NonFiniteLossError:
        """Return to the last weights that were reached, and return the error to raise.

        Arguments:
            number: the number of the epoch.
            place: the place in the epoch, in words.
            what: the fault, as the beginning of the sentence.
            rows: the rows in which it may lie; those of training when omitted.
            name: the name of these rows.
            advice: the end of the sentence; from the rows and weights when omitted.
        """
        self.put_back()
        advice = (
            advice
            or _odd_row(rows or self.train, name)
            or ("try a lower learning rate, 'clip_norm', or a larger 'min_scale'.")
        )
        return NonFiniteLossError(
            f"{what} in epoch {number} {place}, and the VAE has the weights of the end of epoch "
            f"{number - 1} again: {advice}"
        )

    def ended(self, outcome: str) -> Fit:
        """Give the VAE the best weights, which are the last ones without validation rows.

        Return the state that was reached, with this outcome.
        """
        self.vae.load_state_dict(self.reached.best_weights)
        return self.reached.copy()._replace(outcome=outcome)

    def put_back(self) -> None:
        """Give the VAE the weights of the end of the last whole epoch."""
        self.vae.load_state_dict(self.reached.weights)

    def _snapshot(self, history: list[Epoch], best_weights: dict[str, Tensor] | None) -> Fit:
        """Return a copy of the present state, given the best weights until now."""
        weights = copy.deepcopy(self.vae.state_dict())
        is_best = self.validation is None or not history or best_epoch(history) == len(history)
        scheduler = None if self.scheduler is None else copy.deepcopy(self.scheduler.state_dict())
        return Fit(
            history=history,
            weights=weights,
            best_weights=weights if is_best or best_weights is None else best_weights,
            optimizer=copy.deepcopy(self.optimizer.state_dict()),
            scheduler=scheduler,
            outcome="running",
            how=self.svi.how,
            asked=self.asked,
            changes=self.changes,
        )

    def _resumed(self, fit: Fit) -> Fit:
        """Return the state of an earlier run with the settings of this one.

        Raises:
            ValueError: if it is of another VAE; this VAE then stays as it is.
        """
        changed = changes(fit, self.asked, self.scheduler)
        start = copy.deepcopy(self.vae.state_dict())
        try:
            self.vae.load_state_dict(fit.weights)
            go_on(self.optimizer, self.scheduler, fit, changed)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            self.vae.load_state_dict(start)
            raise ValueError(
                f"'resume' must come from a run of this VAE: "
                f"{state_difference(self.vae, fit.weights) or one_line(error)}"
            ) from error
        self.changes = (*fit.changes, *changed)
        now = self._snapshot(fit.history, fit.best_weights)
        return fit.copy()._replace(
            optimizer=now.optimizer, scheduler=now.scheduler, asked=now.asked, changes=now.changes
        )

    def _check(self) -> None:
        training = self.training
        if training.patience is not None and self.validation is None:
            raise ValueError(
                f"'patience' needs validation rows, got {training.patience} without any."
            )
        if not torch.is_grad_enabled():
            raise ValueError("'fit' must be called with gradients enabled, got a call without.")
        parameters = list(self.vae.parameters())
        if any(parameter.is_inference() for parameter in parameters):
            raise ValueError(
                "'vae' must have parameters that allow gradients, got some made under "
                "torch.inference_mode()."
            )
        if not any(parameter.requires_grad for parameter in parameters):
            raise ValueError("'vae' must have parameters to train, got only frozen ones.")
        last_size = training.batches.last_size(len(self.train))
        for part in (self.train, self.validation, self.test):
            if part is not None:
                part.checked()
        if last_size == 1:
            self.train.check_one_row()
        self.train.rows.check_varied()


@contextmanager
def _closed(on_epoch: Callable[[Fit], None] | None) -> Iterator[None]:
    """Call the `close` of a function after the block, if it has one."""
    try:
        yield
    finally:
        close = getattr(on_epoch, "close", None)
        if close is not None:
            close()


def _placed(rows: Rows, device: torch.device) -> Rows:
    """Return the rows on the device, if they fit into half of its free memory.

    Otherwise they stay where they are, and each batch is moved by itself.
    """
    if device.type == "cuda" and rows.levels.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return rows
    return rows.to(device)


def _odd_row(rows: VAERows, name: str) -> str:
    """Return a sentence on the row with the highest −ELBO, if it is far from all others."""
    try:
        losses = negative_elbo_by_row(rows).nan_to_num(math.inf, math.inf, math.inf)
    except InvalidParameterError as error:
        return str(error)
    number = int(losses.argmax())
    if losses[number] <= _ODD * losses.abs().median():
        return ""
    x = rows.batch(slice(number, number + 1)).x
    highest = x[x.isfinite()].abs().max()
    return f"look at row {number} of '{name}', counted from 0, whose x reaches {highest:g}."
