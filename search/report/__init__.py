"""What came out of a run, as one page: `launch.py report`. Start with build.py.

facts.py      every number on the page, read from the run's files: trials.py (the search), trainings.py
              (the final choice), ensembles.py, times.py (where, how long), photos.py (which photos)
effects.py    which losses and augmentations help, by the trials of the search; importance.py: PED-ANOVA
figures.py    facts to figures: figures_of_trials.py, figures_of_effects.py, figures_of_scores.py;
              figure.py is what they share
page.py       facts and figures to HTML, by page.html.jinja, page.css and page.js; wording.py: sentences
png.py        the same figures as PNG
"""
