"""Tasks in processes of their own, with results that are kept: an interrupted run goes on."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

import autodrop
import theory
from paper_checks.ranks import Ranks
from paper_checks.testbed.plan import Level, Task, equivariance_problem, settings
from theory import UnifiedMomentum
from theory.testbed import audit, bench, equivariance
from theory.testbed.controls import Lookahead, RandomDrops
from theory.testbed.worlds import Quadratic

__all__ = ["CLAIMED", "left", "run", "work"]

CLAIMED = 1e-3  # the level of a test that the miscalibrated control claims; it has three times it


def work(task: Task, level: Level, seed: int) -> Any:
    """The result of one task; it depends on the arguments alone."""
    own = zlib.crc32(task.name.split(";")[0].encode()) + seed  # methods share their samples
    if task.kind == "equivariance":
        problem, rate = equivariance_problem()
        return equivariance.measure(
            settings(),
            problem,
            UnifiedMomentum.sgd(),
            learning_rate=rate,
            iterations=level.times,
            stretches=level.stretches,
            trajectories=min(level.trajectories, 50),
            seed=own,
        )
    if task.kind == "audit":
        return _audit(level, own)
    assert task.instance is not None
    return bench.run_instance(
        task.instance,
        task.method,
        settings(),
        horizons=task.horizons,
        trajectories=level.trajectories,
        seed=own,
    )


def _audit(level: Level, seed: int) -> dict[str, Any]:
    problem, rate = equivariance_problem()
    world, sgd = Quadratic(problem), UnifiedMomentum.sgd()
    *leaks, peeker = audit.first_leaks(
        lambda world, seed, steps: [*settings(), Lookahead(world, seed, steps)],
        world,
        sgd,
        learning_rate=rate,
        seed=seed,
    )
    names = [each.name for each in settings()]
    walks = audit.false_drops(settings(), trajectories=level.walks, seed=seed)
    (wrong,) = audit.false_drops(
        [RandomDrops(3 * CLAIMED)],
        trajectories=1000,
        iterations=1000,
        tests=lambda t: t // 10,
        seed=seed,
    )
    return {
        "leaks": dict(zip(names, leaks, strict=True)),
        "peeker": peeker,
        "false_drops": walks,
        "miscalibrated": wrong,
    }


def run(
    planned: tuple[Task, ...],
    level: Level,
    *,
    jobs: int,
    seed: int,
    out: Path,
    shared: Ranks | None = None,
) -> Iterator[tuple[Task, Any]]:
    """Every task with its result, as they come; those that are already in `out` first.

    The results are pickles in `out`/parts, named by everything that they depend on.

    shared : the ranks of torchrun, this being rank 0; then all tasks are shared out, and `jobs` is
        not used.

    Raises RuntimeError after all others are done if a task failed, with what it raised as cause.
    """
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    if shared is not None:
        for i, result in shared.spread(lambda i: work(planned[i], level, seed), len(planned)):
            yield planned[i], _kept(_path(parts, planned[i], level, seed), result)
        return
    missing = left(planned, level, seed, out)
    for task in planned:
        if task not in missing:
            yield task, pickle.loads(_path(parts, task, level, seed).read_bytes())
    failures = []
    found = _one_by_one(missing, level, seed) if jobs == 1 else _spread(missing, level, seed, jobs)
    for task, result in found:
        if isinstance(result, Exception):
            failures.append((task.name, result))
        else:
            yield task, _kept(_path(parts, task, level, seed), result)
    if failures:
        names = "; ".join(name for name, _ in failures)
        raise RuntimeError(f"failed: {names}; what is finished is kept") from failures[0][1]


def left(planned: Sequence[Task], level: Level, seed: int, out: Path) -> list[Task]:
    """The tasks that have no result in `out` yet."""
    return [task for task in planned if not _path(out / "parts", task, level, seed).exists()]


def _one_by_one(missing: list[Task], level: Level, seed: int) -> Iterator[tuple[Task, Any]]:
    """The result of each, or what it raised."""
    for task in missing:
        try:
            result = work(task, level, seed)
        except Exception as error:
            result = error
        yield task, result


def _spread(missing: list[Task], level: Level, seed: int, jobs: int) -> Iterator[tuple[Task, Any]]:
    """The same over processes; fresh ones, since forked ones would inherit torch's threads."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_single_thread) as pool:
        futures = {pool.submit(work, task, level, seed): task for task in missing}
        try:
            for done in as_completed(futures):
                yield futures[done], done.exception() or done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _path(parts: Path, task: Task, level: Level, seed: int) -> Path:
    """Named by the task, the level, the seed, the settings of every contender, and the code."""
    key = repr((task.name, task.horizons, level, seed, settings(), _code()))
    return parts / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.pickle"


@cache
def _code() -> str:
    """A digest of the sources of theory and autodrop: results of other code are not reused."""
    digest = hashlib.sha256()
    for package in (theory, autodrop):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _kept(path: Path, result: Any) -> Any:
    temporary = path.with_suffix(".part")
    temporary.write_bytes(pickle.dumps(result))
    os.replace(temporary, path)
    return result
