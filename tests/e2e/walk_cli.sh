#!/usr/bin/env bash
# A new user's first half hour on the command line, on embedded digits, in the current folder.
set -euo pipefail

latentforge --version
latentforge list models
latentforge show model ae
latentforge data show digits

cat > first.toml <<'TOML'
[model]
name = "ae"
hidden = [128]

[train]
epochs = 8
TOML
latentforge config check first.toml
latentforge train --config first.toml --set model.latent_dim=8 --run runs/first
latentforge train cnn-classifier --epochs 20 --batch-size 32 --lr 3e-3 --quiet
latentforge runs

latentforge evaluate runs/first --split validation --checkpoint best
accuracy=$(latentforge evaluate runs/cnn-classifier-digits-1 --measure accuracy --json |
  python -c 'import json, sys; print(json.load(sys.stdin)["metrics"]["accuracy"])')
python -c "import sys; sys.exit(not $accuracy > 0.9)"

latentforge explore interpolate runs/first --set 'classes=[3, 8]' --set path=linear
test -s runs/first/explore/interpolate/interpolation.png

# a custom plugin in a single file, without packaging
cat > narrow.py <<'PYTHON'
from latentforge import PresetSpec, hookimpl
from pathlib import Path

@hookimpl
def latentforge_presets():
    yield PresetSpec(name="first", summary="My first config", path=Path(__file__).with_name("first.toml"))
PYTHON
latentforge -p ./narrow.py plugins list
latentforge -p ./narrow.py train --preset first --epochs 1 --json > answer.json
python -c 'import json; assert json.load(open("answer.json"))["status"] == "done"'

# a misspelt name and its message
if latentforge train aee 2> slip.txt; then exit 1; else test $? -eq 2; fi
grep "did you mean 'ae'" slip.txt
echo "the walk is done"
