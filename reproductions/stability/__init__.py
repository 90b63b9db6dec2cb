"""Which method stands what: the map of methods × stresses, and the bounds of the signs that come before a collapse.

python -m reproductions.stability                 every run that is not there yet; then the map, and the bounds
python -m reproductions.stability --only-read     the map and the bounds of the runs that are there
"""
