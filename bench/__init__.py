"""What the product's hot spots cost, each against what its users would otherwise run.

`make bench` runs all of them: see bench/__main__.py for the list.
"""
