"""One file per verb: train, resume, evaluate, diagnose, explore, export, encode, decode."""
