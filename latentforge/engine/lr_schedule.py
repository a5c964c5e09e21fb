"""Learning-rate schedules, each a pure function of the step: resuming needs no state."""

from __future__ import annotations

import math

from latentforge.config.schema import ScheduleConfig


def lr_factor(schedule: ScheduleConfig, index: int, epoch_length: int) -> float:
    """The factor of the learning rate in step `index`, counted from 0.

    A linear warm-up ends at 1 after `warmup_epochs`. The schedule then runs until the end of epoch
    `epochs` and stays at its last value.
    """
    warmup = schedule.warmup_epochs * epoch_length  # steps
    if index + 1 < warmup:
        return (index + 1) / warmup
    length = max(schedule.epochs * epoch_length - warmup, 1)
    done = min(max(index - warmup, 0.0) / length, 1.0)
    end = schedule.end
    match schedule.name:
        case "linear":
            return 1.0 + (end - 1.0) * done
        case "cosine":  # Loshchilov and Hutter 2017, one cycle
            return end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * done))
        case "exponential":
            return math.exp(done * math.log(end))
        case "step":
            epoch = min(index // epoch_length, schedule.epochs)
            return schedule.factor ** (epoch // schedule.every)
    return 1.0
