"""How a search is doing, read from its files by another terminal while it runs, or after."""

import json

from search.ledger import progress_of, read_trials
from search.progress import Pace, Status, new_pace
from search.run_folder import RunFolder


def read_status(run: RunFolder) -> Status:
    config = run.config
    trials = read_trials(run.study_db, config.search.name)
    pace = Pace(**json.loads(run.pace_json.read_text())) if run.pace_json.is_file() else new_pace()
    return progress_of(trials, config, pace).status(active=run.is_locked())
