"""What a section of the configuration is, and the kinds of values in it: each has its bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from portdet.errors import PortdetError
from portdet.outside import file_name, path_text


class Section(BaseModel):
    """A section of the configuration: unknown keys are errors, values are checked on assignment too."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, frozen=False, allow_inf_nan=False)


def _run_name(name: str) -> str:
    """A folder's name below train.project, wherever the configuration comes from; '' is filled in later."""
    try:
        return file_name(name, "the name") if name else name
    except PortdetError as error:
        raise ValueError(error.what) from None


PathText = Annotated[str, Field(max_length=4000), AfterValidator(path_text)]
Word = Annotated[str, Field(max_length=200), AfterValidator(path_text)]
Side = Annotated[int, Field(ge=16, le=8192)]  # pixels; the model's stride is checked where the model is known
Scale = Annotated[float, Field(gt=0, le=100)]
AnchorSide = Annotated[float, Field(gt=0, le=16384)]  # pixels of the network's input
Depth = Annotated[int, Field(ge=0, le=1000)]  # blocks of a stage
Mean = Annotated[float, Field(ge=-1000, le=1000)]  # of a colour, in shares of 255
Deviation = Annotated[float, Field(ge=1e-6, le=1000)]
AnchorSides = tuple[tuple[AnchorSide, AnchorSide], ...]
Epoch = Annotated[int, Field(ge=0, le=1_000_000)]
Name = Annotated[str, AfterValidator(_run_name)]
