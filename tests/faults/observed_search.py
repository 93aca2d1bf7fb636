"""launch.py, with trials that say what they train: `python -m tests.faults.observed_search search`."""

import launch
from search import driver
from tests.faults.observed_trial import observed_trial

if __name__ == "__main__":
    driver.run_trial = observed_trial
    launch.app()
