"""What would have come of another schedule? The past played once more under a clock of its own.

`play` is the loop, a day a round; `world` is what happens, `incidents` what is planted in it, `policies` who retrains
when, `trainings` the models that policies share, `feed` and `release` the real gate and the real slots, `page` the
picture.
"""
