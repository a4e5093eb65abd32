"""The bank of planted faults, tried on one backend to see what the gates can see."""

from portdet.align.ladder.fault_edge import CONVERSION, INPUTS, OPTIMISER
from portdet.align.ladder.fault_loss import LOSS, PPYOLO
from portdet.align.ladder.fault_model import ARCHITECTURE, LAYERS
from portdet.align.ladder.fault_planting import Fault
from portdet.align.ladder.fault_recipe import RECIPE, STEP

BANK: list[Fault] = [*LAYERS, *ARCHITECTURE, *LOSS, *PPYOLO, *CONVERSION, *INPUTS, *RECIPE, *STEP, *OPTIMISER]
