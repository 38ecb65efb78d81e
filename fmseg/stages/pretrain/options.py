"""What a user may choose of a pretraining."""

from dataclasses import dataclass, field

from fmseg.stages.pretrain.learn import Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainOptions:
    """What the user may choose."""

    name: str | None = None
    #: checkpoint to go on from; None for random weights
    init: str | None = None
    budget_s: float | None = None
    settings: dict[str, str] = field(default_factory=dict)
    num_workers: int | None = None
    checkpoint_minutes: float = 10.0
    fresh: bool = False
    #: the same bytes again, or as fast as can be; None: the first on a CPU
    deterministic: bool | None = None
    #: read unlabelled images from their files, without a store
    from_files: bool = False
    plugins: tuple[str, ...] = ()
    #: the finished run that this one makes longer: found out, not typed
    lengthens: str | None = None

    @property
    def pace(self) -> Pace:
        """What changes the speed alone."""
        return Pace(num_workers=self.num_workers, checkpoint_minutes=self.checkpoint_minutes)
