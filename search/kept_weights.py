"""What a search has trained of its best trials is not trained again: it becomes their fold.

An ended trial's checkpoints serve for nothing more, with an exception: the `search.finalists` best
finished ones are to be trained on every fold (search/finals.py), and that includes, with the same seed,
those on which the search has trained them. Their checkpoints stay until then, and that training goes on
from its last epoch. Only in a folder that all nodes share: with `search.checkpoint_uri` the folds are
trained anew.
"""

import shutil
from bisect import insort
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.checkpoint_store import open_store
from search.config import SearchConfig
from search.ledger import State
from search.run_folder import RunFolder
from trashseg.fold_models import FoldModel

FROM_SEARCH = "from_search"  # in a fold's folder: the search has trained it


class KeptWeights:
    """Of a search. Drops each ended trial's checkpoints, of finished ones when others are better."""

    def __init__(self, run: RunFolder, config: SearchConfig) -> None:
        self._run, self._score_key = run, config.score_key
        self._store = open_store(config.search.checkpoint_uri, config.search.name)
        self._shared = config.search.checkpoint_uri is None
        self._count = config.search.finalists if self._shared else 0
        self._best: list[tuple[float, int, str]] = []  # best first

    def trial_ended(self, name: str, state: State, facts: Mapping[str, Any]) -> None:
        """As the ledger was told."""
        if state != "finished":
            self._drop(name)
            return
        # of two equals the older one, as in the leaderboard: longer names are younger
        insort(self._best, (-float(facts[self._score_key]), len(name), name))
        for *_, worse in self._best[self._count :]:
            self._drop(worse)
        del self._best[self._count :]

    def _drop(self, name: str) -> None:
        """Its attempts stay. A kill leaves no half of a training that could be taken over: the rest goes
        when the search goes on."""
        self._store.drop(f"trials/{name}", self._run.trial(name))
        for folder in self._run.trial(name).glob("fold_*"):
            shutil.rmtree(folder.rename(folder.with_suffix(".dropped")))

    # --- what becomes of them --------------------------------------------------------------------

    def take_over(self, model: FoldModel) -> None:
        """Move what the search has kept of this very training, if anything, to where it goes on; after
        a kill it goes on with the moving."""
        if not self.has(model):
            return
        (model.folder / FROM_SEARCH).touch()
        kept = self._folder(model)
        for entry in sorted(kept.iterdir()):
            entry.replace(model.folder / entry.name)
        kept.rmdir()

    def has(self, model: FoldModel) -> bool:
        """Whether the search has trained it, and it was not taken over yet. Never where each node has
        a folder of its own: what lies there may be of an earlier run, or not all of it."""
        return self._shared and self._folder(model).is_dir()

    def _folder(self, model: FoldModel) -> Path:
        return self._run.trial_fold(model.folder.parent.name, model.fold)
